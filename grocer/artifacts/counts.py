"""Counts of the rows that ingest read, joined and dropped."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from grocer.artifacts.base import Artifact, Count, Digest, Record


class OrderLineCounts(Record):
    """Order lines: `read = orphans + joined`, and `kept` is `joined` minus dropped nulls."""

    read: Count
    orphans: Count
    """Lines whose product or order is unknown."""
    joined: Count
    with_nulls: Count
    kept: Count


class OrphanCounts(Record):
    """Rows whose foreign key has no match."""

    products_without_department: Count
    products_without_aisle: Count
    order_lines_without_product: Count
    order_lines_without_order: Count


class AppliedCorrection(Record):
    """A product name whose label was corrected."""

    name: str
    source_label: str
    """Label of the source; empty if there was none."""
    label: str
    who: str
    when: str
    """UTC time of the review."""
    products: Count
    """Products with this name that were relabelled."""


class CorrectionCounts(Record):
    """What a corrections table changed; names are counted by their normal form."""

    digest: Digest
    """SHA-256 of the rows."""
    rows: Count
    names: Count
    """Names with a correction that applies."""
    changed_names: Count
    changed_products: Count
    confirmed_names: Count
    """Names whose label was already the corrected one."""
    unmatched_names: Count
    """Names that no product has."""
    conflicts: tuple[str, ...]
    """Names on which reviewers disagree; their label is not changed."""
    listed: tuple[AppliedCorrection, ...]
    """The changed names, at most 1,000."""


class Counts(Artifact):
    """`counts.json` of ingest."""

    FILE: ClassVar = "counts.json"
    order_lines: OrderLineCounts
    products: Count
    departments: Count
    aisles: Count
    orphans: OrphanCounts
    nulls: dict[str, Count]
    """Joined order lines with a null, by column."""
    duplicates: dict[str, Count]
    """Rows that repeat a key, by table."""
    notes: tuple[str, ...]
    """Missing parts of the source, and how each was handled."""
    partitions: dict[str, dict[str, Count]] = Field(default_factory=dict)
    """Rows of each file of the tables in partitions, by table."""
    corrections: CorrectionCounts | None = None
    """None: no corrections table is configured."""
