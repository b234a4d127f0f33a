"""Drift: what products are compared with, and the result of a comparison."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from grocer.artifacts.base import Count, Digest, NonNegative, PositiveCount, Record, Share

Signal = Literal["confidence", "new_words", "names", "departments"]
"""Probability of the predicted label; share of words, and of character n-grams, that are not in the
training vocabulary; the predicted label as a vector of zeros and a one."""


class SignalReference(Record):
    """Mean and variance of a signal over the test products; departments have several elements."""

    products: tuple[float, ...]
    """Mean of the products."""
    purchases: tuple[float, ...]
    """Mean of the products, weighted by how often they occur in a window of purchases."""
    variance: NonNegative
    """Trace of the covariance matrix; the larger one of products and purchases."""
    largest_variance: NonNegative
    """Largest eigenvalue of the covariance matrix, likewise."""


class DriftReference(Record):
    """The signals of the test products."""

    products: PositiveCount
    effective_purchases: Annotated[float, Field(ge=1.0)]
    """Number of products, equally weighted, whose mean is as exact as that of the purchases."""
    signals: dict[Signal, SignalReference]


class SignalTest(Record):
    """Comparison of one signal with the test products."""

    value: float
    """Mean; for `departments`, the Euclidean distance of the means, debiased."""
    reference: float
    """Mean of the test products; for `departments`, 0."""
    p_value: Share
    """Corrected for the number of signals and of the windows that were tested."""
    drift: bool
    """Whether `p_value` is at most the error probability."""


class EstimatedAccuracy(Record):
    """Accuracy of unlabelled products, estimated by their mean confidence, and its interval."""

    accuracy: Share
    low: Share
    high: Share


class DepartmentShare(Record):
    """Share of one label among the predictions, and in the closer reference."""

    department: str
    share: Share
    reference: Share


class NewWord(Record):
    """A word that is not in the training vocabulary."""

    word: str
    products: PositiveCount


class DrivingProduct(Record):
    """A product that contributes to a signal."""

    product_name: str
    department: str
    """Predicted."""
    confidence: Share
    new_words: tuple[str, ...]


class DriftReport(Record):
    """Comparison of the products in a file with the test products of a bundle's evaluation."""

    bundle: Digest
    label: str
    """Singular noun for a label, such as department."""
    rows: Count
    """Rows of the file."""
    products: PositiveCount
    """Distinct names; the comparison is of these."""
    test_products: PositiveCount
    error_probability: Share
    """Probability that any signal reports drift without any."""
    test_accuracy: Share
    estimated_accuracy: EstimatedAccuracy
    signals: dict[Signal, SignalTest]
    """Without `new_words` and `names` if the bundle has no linear model."""
    department_distance: Share | None
    """Total variation distance of the departments, debiased; None with too few products."""
    departments: tuple[DepartmentShare, ...]
    """Largest difference first."""
    new_words: tuple[NewWord, ...]
    """The most frequent ones."""
    drivers: dict[Signal, tuple[DrivingProduct, ...]]
    """The products that contribute most to each signal."""

    @property
    def drift(self) -> bool:
        """Whether any signal reports drift."""
        return any(each.drift for each in self.signals.values())
