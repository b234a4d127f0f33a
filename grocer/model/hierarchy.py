"""Label hierarchy: departments and their aisles.

A completion names a department and then an aisle (` produce: fresh fruits `), so constrained
decoding chooses a department before it chooses an aisle. The completions of one department share
a token prefix. One token trie over these prefixes gives department probabilities, and a second
trie per department over the remaining tokens gives P(aisle | department). The aisles of a
department therefore always sum to its probability, and only the aisles of the predicted
department have to be scored.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from grocer.errors import ConfigError
from grocer.io.atomic import read_json
from grocer.model.combination import scale
from grocer.model.label_trie import MAX_LABELS, Choice, LabelTrie, label_trie

AISLES_FILE = "aisles.json"
"""File beside `labels.json` with the aisles of each label; absent with one level of labels."""

Aisles = Mapping[str, Sequence[str]]
"""The aisles of each department that has any; empty with one level of labels."""
ONE_LEVEL: Aisles = MappingProxyType({})
Leaf = tuple[str, str]
"""A department and one of its aisles."""
T = TypeVar("T")


@dataclass(frozen=True)
class LabelCompletions:
    """The token sequences of one label's completions: one per aisle, or that of the label alone.

    `trie` is built from what follows the shared prefix. It is None if the label has fewer than two
    aisles.
    """

    prefix: tuple[int, ...]
    aisles: tuple[str, ...]
    sequences: tuple[tuple[int, ...], ...]
    trie: LabelTrie | None

    def tokens(self, aisle: str) -> tuple[int, ...]:
        """Return the completion for `aisle`, or the shared prefix if the aisle is unknown."""
        # A label without aisles has one sequence, its prefix.
        return dict(zip(self.aisles, self.sequences, strict=False)).get(aisle, self.prefix)

    def choices(self, aisle: str) -> list[Choice]:
        """Return the choices among aisles on the way to `aisle`; none if it is unknown."""
        if self.trie is None or aisle not in self.aisles:
            return []
        start = len(self.prefix)
        choices = self.trie.choices(self.aisles.index(aisle))
        return [choice._replace(offset=start + choice.offset) for choice in choices]


def label_completions(
    aisles: Sequence[str], sequences: Sequence[tuple[int, ...]]
) -> LabelCompletions:
    """Return the completions of one label, with their shared prefix.

    Args:
        aisles: the label's aisles; may be empty.
        sequences: token ids of one completion per aisle, or of the label alone if it has none.

    Raises:
        ConfigError: two aisles have the same tokens.
    """
    if len(sequences) == 1:
        return LabelCompletions(sequences[0], tuple(aisles), tuple(sequences), None)
    # The last token is excluded from the prefix, so that something follows it in each.
    prefix = tuple(common_prefix([sequence[:-1] for sequence in sequences]))
    trie = label_trie(aisles, [sequence[len(prefix) :] for sequence in sequences])
    return LabelCompletions(prefix, tuple(aisles), tuple(sequences), trie)


def common_prefix(sequences: Sequence[Sequence[T]]) -> list[T]:
    """Return the longest prefix that all sequences share."""
    same = takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False))
    return [column[0] for column in same]


def label_indices(names: Iterable[str], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return the index of each label in the label set; KeyError if it is not in it."""
    index = {label: i for i, label in enumerate(labels)}
    return np.array([index[name] for name in names], dtype=np.int64)


def leaf_name(department: str, aisle: str) -> str:
    """Return the name of a leaf: `produce: fresh fruits`."""
    return f"{department}: {aisle}"


def completion_labels(labels: Iterable[str], aisles: Aisles) -> list[str]:
    """Return the name in each completion: a label with one of its aisles, or a label alone."""
    return [
        name
        for label in labels
        for name in [leaf_name(label, aisle) for aisle in aisles.get(label, ())] or [label]
    ]


def leaves(labels: Iterable[str], aisles: Aisles) -> tuple[Leaf, ...]:
    """Return every label with each of its aisles, in order.

    Raises:
        ConfigError: more than 500 aisles.
    """
    pairs = tuple((label, aisle) for label in labels for aisle in aisles.get(label, ()))
    if len(pairs) > MAX_LABELS:
        raise ConfigError(
            f"{len(pairs)} aisles: the maximum is {MAX_LABELS}; "
            "set catalogue.levels=1 or use coarser aisles"
        )
    return pairs


def read_aisles(directory: Path) -> Aisles:
    """Read `aisles.json`; return an empty mapping if the file does not exist."""
    path = directory / AISLES_FILE
    return read_json(path) if path.is_file() else {}


def leaf_probabilities(
    probabilities: NDArray[np.float64], conditional: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """Return the probability [n, leaves] of each aisle of the predicted department; 0 for others.

    Args:
        probabilities: [n, labels], calibrated.
        conditional: [n, leaves], log P(aisle | predicted department); -inf outside it.
        temperature: calibration of the choice among aisles.
    """
    result = np.zeros_like(conditional)
    rows = np.isfinite(conditional).any(axis=1)
    if rows.any():
        share = scale(conditional[rows], 1 / temperature)
        result[rows] = probabilities[rows].max(axis=1, keepdims=True) * share
    return result
