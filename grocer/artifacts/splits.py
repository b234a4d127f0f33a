"""The split of products into train, validation and test."""

from __future__ import annotations

from typing import ClassVar

from grocer.artifacts.base import (
    Artifact,
    BySide,
    Count,
    Digest,
    PositiveCount,
    Record,
    Share,
    Side,
)


class Overlap(Record):
    """Names and prompts that two sides share."""

    train_validation: Count
    train_test: Count
    validation_test: Count


class Stratification(Record):
    """The department and side whose number of products deviates most from its share."""

    department: str
    side: Side
    products: Count
    share: Share
    expected: Share
    z: float
    """Deviation in standard deviations of independent draws."""


class Splits(Artifact):
    """`split.json` of build_dataset."""

    FILE: ClassVar = "split.json"
    products: BySide[PositiveCount]
    purchases: BySide[Count]
    overlap: Overlap
    departments: dict[str, BySide[Count]]
    """Products of each department, by side."""
    without_test: tuple[str, ...]
    """Departments without test products."""
    stratification: Stratification
    digests: BySide[Digest]
    """SHA-256 of each side's (normalised name, label) pairs."""
    duplicate_names: Count
    """Normalised names that several products share; each is one example."""
    label_conflicts: Count
    """Duplicate names whose products are in several departments."""
    unlabelled: Count
    truncated_names: Count
    """Products whose name is truncated to `MAX_NAME_CHARACTERS` in the prompt."""
    aisles: Count | None = None
    """Aisles with training products; None if the label has one level."""
    aisles_without_training: tuple[str, ...] = ()
    without_aisle: Count | None = None
    """Products whose aisle is unknown."""
