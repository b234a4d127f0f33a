"""Gathers what the steps wrote into the directory that a run leaves."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grocer.artifacts.run_summary import artifacts_below, summarise
from grocer.config.run import RunConfig
from grocer.io.atomic import read_json, write_json

# What a person opens, by the step that wrote it; the rest is below artifacts/.
PAGES = {
    "report.html": "evaluate",
    "validation.html": "validate",
    "split.html": "build_dataset",
    "loss.html": "train",
    "decision.md": "gate",
}


@dataclass(frozen=True)
class Finished:
    """A run that came to its verdict: its summary, and the directory that holds everything."""

    out: Path
    summary: Mapping[str, Any]
    answers: Any
    """What the served model answered; None when the gate said no."""


def collect(root: Path, log: Path, config: RunConfig, made: Path, out: Path) -> Finished:
    """Move what the steps left below `root` into `made`, which will be named `out`."""
    found = artifacts_below(root)
    made.mkdir()
    bundle = None
    if "deploy" in found:
        shutil.move(found["deploy"].parent / "bundle", made / "bundle")
        (bundle,) = (made / "bundle").iterdir()
    artifacts = {step: made / "artifacts" / step for step in found}
    (made / "artifacts").mkdir()
    for step, path in found.items():
        shutil.move(path, artifacts[step])
    for name, step in PAGES.items():
        shutil.copyfile(artifacts[step] / name, made / name)
    shutil.copyfile(log, made / "run.log")
    summary = summarise(artifacts, bundle and out / "bundle" / bundle.name)
    write_json(made / "config.json", config.model_dump(mode="json"))
    summary.write(made)
    answers = read_json(artifacts["deploy"] / "answers.json") if bundle else None
    return Finished(out, summary.model_dump(mode="json"), answers)


def rejected(root: Path) -> Path | None:
    """The artifact of a validation whose run got no further, if there is one."""
    found = artifacts_below(root)
    return found["validate"] if "validate" in found and "build_dataset" not in found else None
