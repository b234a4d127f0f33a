"""A run in one JSON object: what was read, how it was split, how well it does, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grocer.artifacts.step import RECORD, record_of
from grocer.io.atomic import read_json


def artifacts_below(root: Path) -> dict[str, Path]:
    """The artifact directory of each step that wrote one below `root`, oldest first."""
    records = sorted(root.rglob(RECORD), key=lambda record: record.stat().st_mtime_ns)
    return {record_of(record.parent)["step"]: record.parent for record in records}


def summarise(artifacts: Mapping[str, Path], bundle: Path | None) -> dict[str, Any]:
    """The summary of a run whose gate has decided; `bundle` is its directory, if it passed.

    `departments` counts the source's, unlabelled ones too. `aisles` is the second level on the test
    side, null where there is none or no test product's aisle is known.
    Seconds are wall clock, memory is the peak resident set in MiB, both as each step measured
    itself.
    """
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
