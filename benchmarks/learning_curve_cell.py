"""One cell of the learning curve: train and measure all classifiers with n labels."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grocer.artifacts.adapter import Adapter
from grocer.artifacts.splits import Splits
from grocer.config.run import RunConfig
from grocer.config.stages import PredictorConfig
from grocer.dataset import split
from grocer.errors import GrocerError
from grocer.evaluation import baselines, classifiers, metrics, paired
from grocer.evaluation.classifiers import ModelScores
from grocer.evaluation.predictions import load_scorer, score
from grocer.io.atomic import json_digest
from grocer.model.linear.classifier import fit_linear
from grocer.training import run as training

MIN_VALIDATION = 50
VALIDATION_SHARE = 0.1
PAIRS = (
    ("ensemble", "linear"),
    ("adapter", "linear"),
    ("cascade", "linear"),
    ("ensemble", "adapter"),
)
"""Classifiers that are compared by paired tests."""
_FILES = ("labels.json", "template.json")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number of labels and a seed."""

    training: int
    validation: int
    seed: int
    test: int
    settings: Mapping[str, Any]
    splits: str
    """Digest of the sides of the split."""

    @property
    def labels(self) -> int:
        """Number of labels that the classifiers see."""
        return self.training + self.validation

    @property
    def key(self) -> str:
        """Digest of everything that determines the result."""
        return json_digest(asdict(self))


def sample_sizes(size: str, splits: Splits) -> tuple[int, int]:
    """Return the numbers of training and validation products of a size.

    Raises:
        GrocerError: the size is neither `all` nor a number from twice `MIN_VALIDATION` to all.
    """
    available = splits.products
    if size == "all":
        share = VALIDATION_SHARE / (1 - VALIDATION_SHARE)
        wanted = max(MIN_VALIDATION, round(available.train * share))
        return available.train, min(wanted, available.validation)
    labels = int(size) if size.isdecimal() else 0
    validation = min(max(MIN_VALIDATION, round(VALIDATION_SHARE * labels)), available.validation)
    if not 2 * MIN_VALIDATION <= labels <= available.train + validation:
        raise GrocerError(
            f"--sizes {size}: expected `all` or a number from {2 * MIN_VALIDATION} to "
            f"{available.train + validation:,}"
        )
    return labels - validation, validation


def sample(table: pd.DataFrame, count: int, *seed: int) -> pd.DataFrame:
    """Return `count` random rows; a smaller sample of the same seed is a part of a larger one."""
    order = np.random.default_rng(seed).permutation(len(table))
    return table.iloc[order[:count]].reset_index(drop=True)


def measure(cell: Cell, splits: Splits, config: RunConfig, out: Path) -> dict[str, Any]:
    """Train and measure the classifiers of a cell; return it as a JSON object."""
    counts = {"train": cell.training, "validation": cell.validation, "test": cell.test}
    tables = {side: pd.read_parquet(splits.directory / f"{side}.parquet") for side in counts}
    # The test products are the same for all seeds.
    seeds = {"train": (cell.seed, 0), "validation": (cell.seed, 1), "test": (metrics.SEED,)}
    tables = {side: sample(table, counts[side], *seeds[side]) for side, table in tables.items()}
    config = config.with_settings([f"train.seed={config.train.seed + cell.seed}"])
    with tempfile.TemporaryDirectory(prefix=".cell-", dir=out) as scratch:
        sampled = write_splits(tables, splits, config, Path(scratch) / "splits")
        model = Path(scratch) / "model"
        model.mkdir()
        adapter = training.run(sampled, config, model)
        scorer = load_scorer(model, config)
        linear = fit_linear(tables, scorer.labels)
        scores = score(scorer, linear, {side: tables[side] for side in ("validation", "test")})
    gc.collect()
    return {
        "key": cell.key,
        "labels": cell.labels,
        **asdict(cell),
        **summary(scores, baselines.majority(tables["train"]["department"]), config),
        "departments_without_training": len(
            set(tables["test"]["department"]) - set(tables["train"]["department"])
        ),
        "adapter": training_summary(adapter),
    }


def write_splits(
    tables: Mapping[str, pd.DataFrame], splits: Splits, config: RunConfig, out: Path
) -> Splits:
    """Write the sampled sides as an output of build_dataset."""
    out.mkdir()
    for side, table in tables.items():
        table.to_parquet(out / f"{side}.parquet", index=False)
    for name in _FILES:
        shutil.copyfile(splits.directory / name, out / name)
    parts = {side: tables[side] for side in split.SIDES}
    sampled = splits.model_copy(update=split.summary(parts, config.split))
    sampled.write(out)
    return Splits.read(out)


def summary(scores: ModelScores, majority_label: str, config: RunConfig) -> dict[str, Any]:
    """Return the metrics of all classifiers, the paired tests, and what `auto` would choose."""
    measured = classifiers.measure(scores, config.evaluation)
    truth = scores.truth("test")
    probabilities = {
        name: scores.probabilities(each.combination, "test") for name, each in measured.items()
    }
    correct = {name: each.argmax(axis=1) == truth for name, each in probabilities.items()}
    tests = {
        f"{one} {other}": {
            "accuracy": paired.mcnemar(correct[one], correct[other]).model_dump(),
            "log_loss": paired.log_loss(
                probabilities[one], probabilities[other], truth
            ).model_dump(),
        }
        for one, other in PAIRS
    }
    most = scores.labels.index(majority_label)
    majority = {
        **metrics.accuracy(truth == most, config.evaluation.confidence),
        "macro_f1": metrics.macro_f1(truth, np.full(len(truth), most)),
        "log_loss": None,
    }
    auto = PredictorConfig(strategy="auto")
    return {
        "selected": classifiers.choose(measured, scores, auto, two_levels=False),
        "classifiers": {
            "majority": majority,
            **{name: each.model_dump() for name, each in measured.items()},
        },
        "tests": tests,
    }


def training_summary(adapter: Adapter) -> dict[str, Any]:
    """Return what the page shows of the training."""
    return {
        "base": adapter.base,
        "epochs": adapter.epochs,
        "steps": adapter.steps,
        "seconds": adapter.seconds,
        "products_per_second": adapter.examples_per_second,
        "device": adapter.device,
        "compute_dtype": adapter.compute_dtype,
    }
