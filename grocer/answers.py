"""What the model says of each product: the splits scored, and the calibration fitted on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from grocer import calibration, metrics
from grocer.config import RunConfig
from grocer.console import Ticker, say
from grocer.errors import CatalogueError, ModelError

if TYPE_CHECKING:
    from grocer.scoring import Scorer

SIDES = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Labelled products with the model's probabilities [products, labels], row by row."""

    table: pd.DataFrame
    labels: tuple[str, ...]
    probabilities: metrics.Floats

    @property
    def truth(self) -> metrics.Ints:
        """Position of each product's department in the label set."""
        return _positions(self.table["department"], self.labels)

    @property
    def predicted(self) -> metrics.Ints:
        """Position of the likeliest department."""
        result: metrics.Ints = self.probabilities.argmax(axis=1)
        return result

    @property
    def suggested(self) -> list[str]:
        """Name of the likeliest department."""
        return [self.labels[i] for i in self.predicted]

    @property
    def confidence(self) -> metrics.Floats:
        """Probability of the likeliest department."""
        result: metrics.Floats = self.probabilities.max(axis=1)
        return result

    @property
    def right(self) -> metrics.Bools:
        """Whether the likeliest department is the true one."""
        result: metrics.Bools = self.predicted == self.truth
        return result


@dataclass(frozen=True, kw_only=True)
class Answers:
    """All that is asked of the model under evaluation."""

    labels: tuple[str, ...]
    temperature: float
    sides: Mapping[str, Scored]
    """Train (a sample), validation and test, calibrated."""
    unlabelled: Scored
    """Products without a department, calibrated; there is no truth in its table."""
    untuned: Scored
    """A sample of test, by the base without the adapter, not calibrated."""
    untuned_rows: metrics.Ints
    """Rows of test that the sample is of."""


def read(splits: Path) -> dict[str, pd.DataFrame]:
    """The tables of a split: `train`, `validation`, `test` and `unlabelled`.

    Raises:
        CatalogueError: a side is empty, or training has a single department.
    """
    tables = {name: pd.read_parquet(splits / f"{name}.parquet") for name in (*SIDES, "unlabelled")}
    for side in SIDES:
        if tables[side].empty:
            raise CatalogueError(
                f"{splits}: no {side} products, but at least 1 is needed to evaluate; bring more "
                "products, or change split.validation and split.test"
            )
    if tables["train"]["department"].nunique() < 2:
        raise CatalogueError(
            f"{splits}: all training products are of one department, but at least 2 are needed "
            "to compare; bring more products"
        )
    return tables


def collect(model: Path, tables: Mapping[str, pd.DataFrame], config: RunConfig) -> Answers:
    """Ask the model in `model` about the `tables` that `read` gave.

    The temperature is fitted on validation alone. The model is let go when this returns: a
    small GPU has room for one.

    Raises:
        ModelError: the tables hold a department that the model can't answer.
    """
    settings = config.evaluation
    scorer = load(model, config)
    labels = tuple(scorer.labels)
    strange = {label for side in SIDES for label in tables[side]["department"]} - set(labels)
    if strange:
        raise ModelError(
            f"{model} can't answer {', '.join(sorted(strange))}, which the splits hold: it was "
            "trained on other splits; train on these, or evaluate on its own"
        )
    asked = dict(tables)
    asked["train"] = _take(tables["train"], settings.train_sample, settings.seed)[0]
    logs = {name: ask(scorer, table["product_name"], name) for name, table in asked.items()}
    truth = _positions(asked["validation"]["department"], labels)
    temperature = calibration.fit_temperature(logs["validation"], truth)
    say("evaluate", f"temperature {temperature:.3f}, fitted on {len(truth):,} validation products")
    scored = {
        name: Scored(
            table=asked[name],
            labels=labels,
            probabilities=calibration.apply_temperature(log_probabilities, temperature),
        )
        for name, log_probabilities in logs.items()
    }
    some, rows = _take(tables["test"], settings.base_model_sample, settings.seed)
    with scorer.untuned():
        base = np.exp(ask(scorer, some["product_name"], "test, untuned base"))
    return Answers(
        labels=labels,
        temperature=temperature,
        sides={side: scored[side] for side in SIDES},
        unlabelled=scored["unlabelled"],
        untuned=Scored(table=some, labels=labels, probabilities=base),
        untuned_rows=rows,
    )


def load(model: Path, config: RunConfig) -> Scorer:
    """The scorer of a model or a bundle, as the run is configured."""
    from grocer.scoring import Scorer

    return Scorer.load(
        model,
        token_budget=config.evaluation.token_budget,
        device=config.base.device,
        compute_dtype=config.base.compute_dtype,
    )


def ask(scorer: Scorer, names: Iterable[str], what: str) -> metrics.Floats:
    """Log-probabilities [products, labels] of `names`, telling how far it has come."""
    listed = list(names)
    if not listed:
        return np.empty((0, len(scorer.labels)))
    ticker = Ticker("evaluate", len(listed), "products")
    return scorer.log_probabilities(listed, progress=lambda done, _: ticker.at(done, what))


def _take(table: pd.DataFrame, size: int, seed: int) -> tuple[pd.DataFrame, metrics.Ints]:
    """At most `size` rows drawn by `seed`, in the table's order, and where they were."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(table))[:size])
    return table.iloc[rows].reset_index(drop=True), rows


def _positions(departments: pd.Series[str], labels: tuple[str, ...]) -> metrics.Ints:
    """Each department's position in the label set."""
    place = {label: i for i, label in enumerate(labels)}
    return np.fromiter((place[name] for name in departments), np.int64, len(departments))
