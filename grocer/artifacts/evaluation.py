"""Evaluation of a classifier: all metrics that the gate and the report use."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from grocer.artifacts.base import Artifact, BySide, Count, Digest, Labels, Record, Share
from grocer.artifacts.combination import Combination, Strategy
from grocer.artifacts.metrics import (
    BaselineComparison,
    ChampionComparison,
    ClassifierMetrics,
    ConfidentError,
    CoveragePoint,
    DepartmentMetrics,
    HierarchicalMetrics,
    OperatingPoint,
    RawLabels,
    Reference,
    ReliabilityBin,
    RowSplitLeakage,
    SideMetrics,
    SliceMetrics,
)
from grocer.errors import ArtifactError


class EvaluationInputs(Record):
    """Digests of the artifacts that were measured."""

    model: Digest
    splits: Digest


class Evaluation(Artifact):
    """`evaluation.json` of evaluate; all numbers are of calibrated probabilities.

    The model is the selected classifier; only `classifiers` has metrics of the other ones.
    """

    FILE: ClassVar = "evaluation.json"
    schema_version: int = Field(default=5, alias="schema")
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
    raw_labels: RawLabels | None
    """None: the run has no corrections table. All other metrics are of the corrected labels."""

    @classmethod
    def of_run(cls, run: Path) -> Evaluation:
        """Return the evaluation in the output directory of `grocer run`.

        Raises:
            ArtifactError: the directory is not that of a run, or the file is invalid.
        """
        evaluated = run / "artifacts" / "evaluate"
        if not (evaluated / cls.FILE).is_file():
            raise ArtifactError(f"{run}: expected the output directory of grocer run")
        return cls.read(evaluated)

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
