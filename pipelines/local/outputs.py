"""Collects the artifacts of a run into its output directory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grocer.artifacts.run_summary import RunSummary, artifacts_below, summarise
from grocer.artifacts.validation_report import ValidationReport
from grocer.config.run import RunConfig
from grocer.io.atomic import read_json, write_json
from grocer.release.lineage import Lineage

# HTML and Markdown pages with the step that wrote each; other files are below artifacts/.
PAGES = {
    "report.html": "evaluate",
    "validation.html": "validate",
    "split.html": "build_dataset",
    "loss.html": "train",
    "decision.md": "gate",
}
# Artifacts that a bundle is written from, with the step that wrote each.
JUDGED = {
    "model": "train",
    "splits": "build_dataset",
    "evaluation": "evaluate",
    "decision": "gate",
}


@dataclass(frozen=True)
class Finished:
    """A completed run, whether or not the gate passed."""

    out: Path
    summary: RunSummary
    predictions: Any
    """Predictions of the deployed model in its smoke test; None if the gate failed."""


def collect(root: Path, log: Path, config: RunConfig, staging: Path, out: Path) -> Finished:
    """Move the artifacts below `root` to `staging`, which will be renamed to `out`."""
    found = artifacts_below(root)
    staging.mkdir()
    bundle = None
    if "deploy" in found:
        shutil.move(found["deploy"].parent / "bundle", staging / "bundle")
        (bundle,) = (staging / "bundle").iterdir()
    artifacts = {step: staging / "artifacts" / step for step in found}
    (staging / "artifacts").mkdir()
    for step, path in found.items():
        shutil.move(path, artifacts[step])
    for name, step in PAGES.items():
        shutil.copyfile(artifacts[step] / name, staging / name)
    shutil.copyfile(log, staging / "run.log")
    summary = summarise(artifacts, bundle and out / "bundle" / bundle.name)
    write_json(staging / "config.json", config.model_dump(mode="json"))
    summary.write(staging)
    report = out / (f"bundle/{bundle.name}" if bundle else "report.html")
    judged = {name: artifacts[step] for name, step in JUDGED.items()}
    Lineage.of_run(judged, config, str(report), bundle and bundle.name).write(staging)
    predictions = read_json(artifacts["deploy"] / "predictions.json") if bundle else None
    return Finished(out, summary, predictions)


def failed_validation(root: Path) -> Path | None:
    """Return the validation artifact if an expectation was not met, else None."""
    path = artifacts_below(root).get("validate")
    return path if path and not ValidationReport.read(path).success else None
