"""Metrics that an evaluation consists of, as typed records."""

from __future__ import annotations

from typing import Annotated, Self, get_args

from pydantic import Field, model_validator

from grocer.artifacts.base import BySide, Count, Digest, NonNegative, PositiveCount, Record, Share
from grocer.artifacts.combination import Combination
from grocer.artifacts.drift import DriftReference, Signal


class Accuracy(Record):
    """Share of correct products with its Wilson interval."""

    products: PositiveCount
    accuracy: Share
    accuracy_low: Share
    accuracy_high: Share


class RawLabels(Record):
    """Test metrics against the labels of the source, without the corrections of reviewers."""

    corrected: Count
    """Test products whose label was corrected, including those that had none."""
    accuracy: Accuracy | None
    """Of the test products that have a label in the source; None without any."""


class Calibration(Record):
    """Difference between confidence and accuracy."""

    ece: Share
    """Expected calibration error."""
    ece_debiased: Annotated[float, Field(ge=-0.5, le=1.0)]
    """Without the part that a calibrated model has by chance; negative if `ece` is below it."""
    ece_p_value: Share
    """Probability that a calibrated model has this `ece` or a higher one."""


class SideMetrics(Calibration, Accuracy):
    """Metrics of one side of the split."""

    cluster_low: Share
    cluster_high: Share
    """Bootstrap interval of accuracy over the first words of names."""
    macro_f1: Share
    top3_accuracy: Share
    weighted_accuracy: Share
    """Accuracy weighted by purchases, with a bootstrap interval."""
    weighted_accuracy_low: Share
    weighted_accuracy_high: Share
    log_loss: NonNegative
    """In nats."""


class DepartmentMetrics(Record):
    """Test metrics of one label; None where they are undefined."""

    support: Count
    precision: Share | None
    recall: Share | None
    f1: Share | None


class PairedTest(Record):
    """McNemar's exact test of the model against another on the same products."""

    products: PositiveCount
    model_accuracy: Share
    baseline_accuracy: Share
    only_model_right: Count
    only_baseline_right: Count
    p_value: Share


class PairedLogLoss(Record):
    """Paired bootstrap test of the model's log-loss against another's on the same products."""

    model_log_loss: NonNegative
    baseline_log_loss: NonNegative
    p_value: Share
    """Two-sided, of the mean difference."""


class BaselineComparison(Accuracy):
    """A baseline's accuracy, and its paired tests against the model."""

    macro_f1: Share
    paired: PairedTest
    paired_log_loss: PairedLogLoss | None
    """None for a baseline without calibrated probabilities."""


class ComparisonNumber(Record):
    """Comparisons with a champion that used the same test products, including the current one."""

    total: PositiveCount
    """With all champions up to the current one."""
    with_champion: PositiveCount
    """With the current champion."""


class ChampionComparison(BaselineComparison):
    """The deployed bundle, measured as a baseline."""

    digest: Digest
    number: ComparisonNumber | None
    """None: the champion is in an OCI registry, where comparisons are not counted."""
    new_products: PairedTest | None
    """The paired test on the products that the champion's catalogue did not have; None: no such
    product."""


class ReliabilityBin(Record):
    """Predictions whose confidence is between `low` and `high`."""

    low: Share
    high: Share
    count: PositiveCount
    confidence: Share
    accuracy: Share


class ClassifierMetrics(Calibration, Accuracy):
    """Test metrics of one classifier, with its own calibration."""

    macro_f1: Share
    log_loss: NonNegative
    """In nats."""
    validation_log_loss: NonNegative
    """Log-loss on the validation products, by which `auto` selects."""
    language_model_share: Share
    """Share of the test products that the language model scores."""
    names_per_second: NonNegative
    """From the seconds that both models took for the test products in this run."""
    combination: Combination


class CoveragePoint(Record):
    """Accuracy of the predictions whose confidence reaches `threshold`."""

    threshold: Share
    coverage: Share
    accuracy: Share


class OperatingPoint(Record):
    """The lowest threshold of confidence at which the validation products reach an accuracy."""

    required_accuracy: Share
    threshold: Share | None
    """None: no threshold reaches it."""
    coverage: Share
    """Share of the test products that reach the threshold."""
    accuracy: Accuracy | None
    """Accuracy of those test products; None without any."""


class ConfidentError(Record):
    """A wrong prediction with high confidence: possibly a wrong label."""

    product_name: str
    department: str
    predicted: str
    probability: Share


class Reference(Record):
    """What monitoring compares live predictions with."""

    departments: dict[str, Share]
    """Share of the predictions for test products, by department."""
    purchases: dict[str, Share]
    """Share of the purchases of all products, by department."""
    mean_confidence: Share
    """Of the predictions for test products."""
    drift: DriftReference
    """Signals of the test products."""

    @model_validator(mode="after")
    def _has_every_signal(self) -> Self:
        if missing := set(get_args(Signal)) - set(self.drift.signals):
            raise ValueError(f"drift.signals: missing: {', '.join(sorted(missing))}")
        return self


class RowSplitLeakage(Record):
    """Accuracy of a lookup table where purchase rows are split at random."""

    train_accuracy: Share
    test_accuracy: Share
    share_of_test_products_seen_in_training: Share
    """Share of test rows whose product is also in training rows."""
    purchase_rows: Count


class SliceMetrics(Record):
    """Accuracy of the test products that share a property."""

    slice: str
    value: str
    products: PositiveCount
    accuracy: Share


class AisleMetrics(Calibration, Accuracy):
    """Metrics of department and aisle together."""

    department_accuracy: Share
    accuracy_within: Share | None
    """Aisle accuracy where the department is correct; None if it never is."""
    macro_f1: Share


class AisleRow(Record):
    """Test metrics of one aisle."""

    department: str
    aisle: str
    support: PositiveCount
    recall: Share
    precision: Share | None


class AisleConfusion(Record):
    """Test products of one aisle that were predicted in another."""

    department: str
    aisle: str
    predicted_department: str
    predicted_aisle: str
    products: PositiveCount


class HierarchicalMetrics(Record):
    """Metrics of the second label level, over products whose aisle is known."""

    labels: dict[str, tuple[str, ...]]
    """Aisles of each department."""
    metrics: BySide[AisleMetrics | None]
    """None for a side without known aisles."""
    linear: BaselineComparison | None
    aisles: tuple[AisleRow, ...]
    confusions: tuple[AisleConfusion, ...]
    """The most frequent ones."""
