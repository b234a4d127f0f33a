"""Summary of a run: what was read, how it was split, the metrics, and the gate's decision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from grocer.artifacts.base import Artifact, BySide, Count, NonNegative, PositiveCount, Record
from grocer.artifacts.combination import Strategy
from grocer.artifacts.counts import Counts
from grocer.artifacts.decision import Decision
from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.metrics import (
    AisleMetrics,
    BaselineComparison,
    ClassifierMetrics,
    OperatingPoint,
    SideMetrics,
)
from grocer.artifacts.splits import Splits
from grocer.artifacts.step import RECORD, record_of
from grocer.events import Reason


class Verdict(Record):
    """The gate's decision."""

    passed: bool
    reasons: tuple[Reason, ...]


class RunSummary(Artifact):
    """`summary.json` of a run."""

    FILE: ClassVar = "summary.json"
    order_lines: dict[Literal["read", "with_nulls", "kept"], Count]
    products: Count
    departments: Count
    """Departments of the source, including unlabelled ones."""
    split: BySide[PositiveCount]
    strategy: Strategy
    """The selected classifier, which `metrics` are of."""
    classifiers: dict[Strategy, ClassifierMetrics]
    metrics: BySide[SideMetrics]
    baselines: dict[str, BaselineComparison]
    operating_points: tuple[OperatingPoint, ...]
    """Share of products that can be classified automatically, by required accuracy."""
    aisles: AisleMetrics | None
    """Test metrics of the second level; None with one level or without known aisles."""
    gate: Verdict
    bundle: dict[Literal["path", "digest"], str] | None
    """None: the gate failed."""
    seconds: dict[str, NonNegative]
    """Wall-clock time of each step."""
    peak_rss_mb: dict[str, NonNegative]
    """Peak resident memory of each step, in MiB."""


def artifacts_below(root: Path) -> dict[str, Path]:
    """Return the artifact directory of each step below `root`, oldest first."""
    records = sorted(root.rglob(RECORD), key=lambda record: record.stat().st_mtime_ns)
    return {record_of(record.parent)["step"]: record.parent for record in records}


def summarise(artifacts: Mapping[str, Path], bundle: Path | None) -> RunSummary:
    """Return the summary of a finished run.

    Args:
        artifacts: the output directory of each step.
        bundle: directory of the bundle, if the gate passed.

    Raises:
        ArtifactError: an artifact is missing or invalid.
    """
    counts = Counts.read(artifacts["ingest"])
    splits = Splits.read(artifacts["build_dataset"])
    evaluation = Evaluation.read(artifacts["evaluate"])
    decision = Decision.read(artifacts["gate"])
    records = {step: record_of(path) for step, path in artifacts.items()}
    lines = counts.order_lines
    return RunSummary(
        order_lines={"read": lines.read, "with_nulls": lines.with_nulls, "kept": lines.kept},
        products=counts.products,
        departments=counts.departments,
        split=splits.products,
        strategy=evaluation.combination.strategy,
        classifiers=evaluation.classifiers,
        metrics=evaluation.metrics,
        baselines=evaluation.baselines,
        operating_points=evaluation.operating_points,
        aisles=evaluation.aisles.metrics.test if evaluation.aisles else None,
        gate=Verdict(passed=decision.passed, reasons=decision.reasons),
        bundle={"path": str(bundle), "digest": bundle.name} if bundle else None,
        seconds={step: record["seconds"] for step, record in records.items()},
        peak_rss_mb={step: record["peak_rss_mb"] for step, record in records.items()},
    )
