"""Encoded products and their scores, as evaluation and serving exchange them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from grocer.model.combination import Floats, Ints
from grocer.model.hierarchy import Leaf


class EncodedProduct(NamedTuple):
    """A product that is ready to be scored."""

    name: str
    suffix: Sequence[int]
    """Token ids of its prompt after the prefix; empty if the adapter is not needed."""
    tokens: int
    """Tokens that it adds to the first forward pass; 0 if the adapter is not needed."""
    linear_log: Floats | None = None
    """Log-probabilities [labels] of the linear model; None if the classifier has none."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Calibrated probabilities of n products; a slice holds the scores of some of them."""

    labels: tuple[str, ...]
    """The columns of `probabilities`."""
    leaves: tuple[Leaf, ...]
    """The columns of `leaf_probabilities`; empty with one level of labels."""
    probabilities: Floats
    """float64 [n, labels]; each row sums to 1."""
    leaf_probabilities: Floats
    """float64 [n, leaves]; the aisles of the predicted label sum to its probability, those of
    other labels are 0."""

    def __post_init__(self) -> None:
        rows = len(self.probabilities)
        expected = [(rows, len(self.labels)), (rows, len(self.leaves))]
        if [self.probabilities.shape, self.leaf_probabilities.shape] != expected:
            raise ValueError(
                f"scores of shape {self.probabilities.shape} and {self.leaf_probabilities.shape}; "
                f"expected {expected[0]} and {expected[1]}"
            )

    @classmethod
    def flat(cls, labels: Sequence[str], probabilities: Floats) -> Scores:
        """Return scores of labels without aisles."""
        return cls(tuple(labels), (), probabilities, np.empty((len(probabilities), 0)))

    @classmethod
    def concatenate(cls, parts: Sequence[Scores]) -> Scores:
        """Return the scores of all `parts` (at least one), in order."""
        return cls(
            parts[0].labels,
            parts[0].leaves,
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.leaf_probabilities for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, rows: slice) -> Scores:
        return Scores(
            self.labels, self.leaves, self.probabilities[rows], self.leaf_probabilities[rows]
        )

    @property
    def predicted(self) -> Ints:
        """int64 [n]: index of the most probable label; the first of equals."""
        result: Ints = self.probabilities.argmax(axis=1)
        return result

    @property
    def predicted_labels(self) -> list[str]:
        """Name of the most probable label of each product."""
        return [self.labels[index] for index in self.predicted]

    @property
    def confidence(self) -> Floats:
        """[n]: probability of the predicted label."""
        result: Floats = self.probabilities.max(axis=1)
        return result

    @property
    def predicted_aisles(self) -> list[str]:
        """The most probable aisle of the predicted label; empty if that label has no aisles."""
        best = self.leaf_probabilities.argmax(axis=1) if self.leaves else [0] * len(self)
        known = self.aisle_confidence > 0
        return [self.leaves[i][1] if has else "" for i, has in zip(best, known, strict=True)]

    @property
    def aisle_confidence(self) -> Floats:
        """[n]: probability of the predicted aisle; 0 if there is none."""
        result: Floats = self.leaf_probabilities.max(axis=1, initial=0.0)
        return result

    def top(self, k: int) -> tuple[Ints, Floats]:
        """Label indices and probabilities [n, min(k, labels)], most probable first.

        Ties keep the order of the label set.
        """
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(self.probabilities, order, axis=1)
