"""Evaluation of a classifier: all metrics that the gate and the report use."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from grocer.artifacts.base import (
    Artifact,
    BySide,
    Count,
    Digest,
    Labels,
    NonNegative,
    PositiveCount,
    Record,
    Share,
)
from grocer.artifacts.combination import Combination, Strategy


class Accuracy(Record):
    """Share of correct products with its Wilson interval."""

    products: PositiveCount
    accuracy: Share
    accuracy_low: Share
    accuracy_high: Share


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


class ChampionComparison(BaselineComparison):
    """The deployed bundle, measured as a baseline."""

    digest: Digest


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
    """Test predictions that monitoring compares live predictions with."""

    departments: dict[str, Share]
    """Share of predictions by department."""
    mean_confidence: Share


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


class EvaluationInputs(Record):
    """Digests of the artifacts that were measured."""

    model: Digest
    splits: Digest


class Evaluation(Artifact):
    """`evaluation.json` of evaluate; all numbers are of calibrated probabilities.

    The model is the selected classifier; only `classifiers` has metrics of the other ones.
    """

    FILE: ClassVar = "evaluation.json"
    schema_version: int = Field(default=4, alias="schema")
    label: str
    """Singular noun for a label, such as department."""
    confidence: Share
    """Confidence level of all intervals."""
    digests: EvaluationInputs
    labels: Labels
    combination: Combination
    """The selected classifier."""
    selected_by: Literal["configured", "validation log-loss"]
    classifiers: dict[Strategy, ClassifierMetrics]
    metrics: BySide[SideMetrics]
    departments: dict[str, DepartmentMetrics]
    confusion: tuple[tuple[Count, ...], ...]
    """Test products by true (row) and predicted (column) label."""
    reliability: tuple[ReliabilityBin, ...]
    """Reliability curve of the test products."""
    coverage: tuple[CoveragePoint, ...]
    operating_points: tuple[OperatingPoint, ...]
    confident_errors: tuple[ConfidentError, ...]
    reference: Reference
    baselines: dict[str, BaselineComparison]
    champion: ChampionComparison | None
    """None: no bundle is deployed."""
    row_split_leakage: RowSplitLeakage
    aisles: HierarchicalMetrics | None
    """None: the label has one level."""
    slices: tuple[SliceMetrics, ...]

    @property
    def public(self) -> Evaluation:
        """A copy without product names, which may leave the pipeline."""
        return self.model_copy(update={"confident_errors": ()})

    @property
    def selected(self) -> ClassifierMetrics:
        """Test metrics of the selected classifier."""
        return self.classifiers[self.combination.strategy]

    @property
    def significance(self) -> float:
        """Significance level of tests: 1 minus the confidence level."""
        return round(1 - self.confidence, 12)

    @model_validator(mode="after")
    def _tables_match_labels(self) -> Self:
        if differing := set(self.departments) ^ set(self.labels):
            raise ValueError(f"departments and labels differ: {', '.join(sorted(differing))}")
        size = len(self.labels)
        if len(self.confusion) != size or any(len(row) != size for row in self.confusion):
            raise ValueError(f"confusion is not a {size} by {size} matrix")
        return self

    @model_validator(mode="after")
    def _classifiers_are_complete(self) -> Self:
        if missing := set(get_args(Strategy)) - set(self.classifiers):
            raise ValueError(f"classifiers: not measured: {', '.join(sorted(missing))}")
        for strategy, classifier in self.classifiers.items():
            if classifier.combination.strategy != strategy:
                raise ValueError(f"classifiers.{strategy}: combination is that of another one")
        if self.combination != self.selected.combination:
            raise ValueError("combination differs from that in classifiers")
        return self
