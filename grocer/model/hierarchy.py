"""Aisles as a second level: the department first, then the aisle within it.

An answer spells both (` produce: fresh fruits `), so decoding chooses a department before it
chooses among that department's aisles. What the answers of a department have in common is its
*stem*: departments are told apart by their stems, in one trie, and the aisles of each by what
follows its stem, in a trie of their own. An aisle's probability is that of its department times
its share of it. So the aisles of a department sum to its probability, whatever the model says,
and only those of the department that is answered need to be asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from grocer.errors import ConfigError
from grocer.io.atomic import read_json
from grocer.model.calibration import apply_temperature
from grocer.model.label_trie import MAX_LABELS, LabelTrie, label_trie

FILE = "aisles.json"
"""Beside `labels.json`, where the labels have aisles: the aisles of each, by its name."""

Aisles = Mapping[str, Sequence[str]]
"""The aisles of each department that has any; empty: the labels have one level."""
ONE_LEVEL: Aisles = MappingProxyType({})
Leaf = tuple[str, str]
"""A department and one of its aisles."""


@dataclass(frozen=True)
class Shelf:
    """One department: its stem, and what follows it for each of its aisles."""

    stem: tuple[int, ...]
    aisles: tuple[str, ...]
    endings: tuple[tuple[int, ...], ...]
    trie: LabelTrie | None
    """Of the endings; None: fewer than two aisles, so that there is nothing to choose."""

    def answer(self, aisle: str) -> tuple[int, ...]:
        """Tokens of the answer; of the stem alone where the aisle is none of these."""
        if aisle not in self.aisles:
            return self.stem
        return self.stem + self.endings[self.aisles.index(aisle)]


def shelf(aisles: Sequence[str], answers: Sequence[tuple[int, ...]]) -> Shelf:
    """The department whose aisles' whole answers are `answers`; without aisles, its own one.

    Raises:
        ConfigError: aisles that can't be told apart.
    """
    if len(answers) == 1:
        return Shelf(answers[0], tuple(aisles), ((),) * len(aisles), None)
    # What the first and the last in order share, all share; something is left of each.
    extremes = zip(min(answers)[:-1], max(answers), strict=False)
    stem = tuple(token for token, _ in takewhile(lambda pair: pair[0] == pair[1], extremes))
    endings = tuple(answer[len(stem) :] for answer in answers)
    return Shelf(stem, tuple(aisles), endings, label_trie(aisles, endings))


def spell(department: str, aisle: str) -> str:
    """The answer that names both, without the template's own spaces."""
    return f"{department}: {aisle}"


def spelled(labels: Iterable[str], aisles: Aisles) -> list[str]:
    """Every answer: a label with each of its aisles, or the label alone."""
    return [
        answer
        for label in labels
        for answer in [spell(label, aisle) for aisle in aisles.get(label, ())] or [label]
    ]


def leaves(labels: Iterable[str], aisles: Aisles) -> tuple[Leaf, ...]:
    """Every department with each of its aisles, in order.

    Raises:
        ConfigError: more than 500.
    """
    found = tuple((label, aisle) for label in labels for aisle in aisles.get(label, ()))
    if len(found) > MAX_LABELS:
        raise ConfigError(
            f"{len(found)} aisles; a label set has at most {MAX_LABELS}. "
            "Set catalogue.levels=1, or bring coarser aisles"
        )
    return found


def read_aisles(directory: Path) -> Aisles:
    """What stands beside `labels.json`; empty where the labels have one level."""
    path = directory / FILE
    return read_json(path) if path.is_file() else {}


def likeliest_aisles(probabilities: NDArray[np.float64], leaves: Sequence[Leaf]) -> list[str]:
    """The aisle with the highest of `probabilities` [n, leaves]; empty where all are 0."""
    places, sure = probabilities.argmax(axis=1), probabilities.max(axis=1) > 0
    return [leaves[i][1] if there else "" for i, there in zip(places, sure, strict=True)]


def of_likeliest(
    probabilities: NDArray[np.float64], within: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """[n, leaves]: the probability of each aisle of the likeliest department, 0 of all others.

    Args:
        probabilities: [n, labels], calibrated.
        within: [n, leaves], log-probabilities within that department, -inf outside.
        temperature: of the choice among its aisles.
    """
    found = np.zeros_like(within)
    asked = np.isfinite(within).any(axis=1)
    if asked.any():
        share = apply_temperature(within[asked], temperature)
        found[asked] = probabilities[asked].max(axis=1, keepdims=True) * share
    return found
