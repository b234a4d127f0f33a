"""Summary of a run: what was read, how it was split, the metrics, and the gate's decision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from grocer.artifacts.base import (
    Artifact,
    BySide,
    Count,
    Digest,
    NonNegative,
    PositiveCount,
    Record,
)
from grocer.artifacts.decision import Reason
from grocer.artifacts.evaluation import AisleMetrics, BaselineComparison, SideMetrics
from grocer.artifacts.step import RECORD, record_of
from grocer.io.atomic import read_json


class OrderLines(Record):
    """Order lines read, with a null, and kept."""

    read: Count
    with_nulls: Count
    kept: Count


class Verdict(Record):
    """The gate's decision."""

    passed: bool
    reasons: tuple[Reason, ...]


class BundlePath(Record):
    """Where the run wrote its bundle."""

    path: str
    digest: Digest


class RunSummary(Artifact):
    """`summary.json` of a run."""

    FILE: ClassVar = "summary.json"
    order_lines: OrderLines
    products: Count
    departments: Count
    """Departments of the source, including unlabelled ones."""
    split: BySide[PositiveCount]
    metrics: BySide[SideMetrics]
    baselines: dict[str, BaselineComparison]
    aisles: AisleMetrics | None
    """Second level on the test side; None if there is none or no test product's aisle is known."""
    gate: Verdict
    bundle: BundlePath | None
    """None: the gate failed."""
    seconds: dict[str, NonNegative]
    """Wall-clock time of each step."""
    peak_rss_mb: dict[str, NonNegative]
    """Peak resident memory of each step, in MiB."""


def artifacts_below(root: Path) -> dict[str, Path]:
    """Return the artifact directory of each step below `root`, oldest first."""
    records = sorted(root.rglob(RECORD), key=lambda record: record.stat().st_mtime_ns)
    return {record_of(record.parent)["step"]: record.parent for record in records}


def summarise(artifacts: Mapping[str, Path], bundle: Path | None) -> dict[str, Any]:
    """Return the summary of a finished run; `bundle` is its directory if the gate passed."""
    counts = read_json(artifacts["ingest"] / "counts.json")
    split = read_json(artifacts["build_dataset"] / "split.json")
    evaluation = read_json(artifacts["evaluate"] / "evaluation.json")
    decision = read_json(artifacts["gate"] / "decision.json")
    records = {step: record_of(path) for step, path in artifacts.items()}
    return {
        "order_lines": {key: counts["order_lines"][key] for key in ("read", "with_nulls", "kept")},
        "products": counts["products"],
        "departments": counts["departments"],
        "split": split["products"],
        "metrics": evaluation["metrics"],
        "baselines": evaluation["baselines"],
        "aisles": evaluation["aisles"] and evaluation["aisles"]["metrics"]["test"],
        "gate": {"passed": decision["passed"], "reasons": decision["reasons"]},
        "bundle": bundle and {"path": str(bundle), "digest": bundle.name},
        "seconds": {step: record["seconds"] for step, record in records.items()},
        "peak_rss_mb": {step: record["peak_rss_mb"] for step, record in records.items()},
    }
