"""What the model says of each product: the splits scored, and the calibration fitted on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from grocer.config.run import RunConfig
from grocer.errors import CatalogueError, ModelError
from grocer.evaluation import metrics
from grocer.inference.scores import Scores
from grocer.model import calibration
from grocer.model.hierarchy import Leaf, leaf_probabilities
from grocer.progress import Ticker, say

if TYPE_CHECKING:
    from grocer.inference.scorer import Scorer

SIDES = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Labelled products and their scores, row by row."""

    table: pd.DataFrame
    scores: Scores

    @property
    def labels(self) -> tuple[str, ...]:
        """The label set."""
        return self.scores.labels

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """Every label with each of its aisles; empty with one level of labels."""
        return self.scores.leaves

    @property
    def probabilities(self) -> metrics.Floats:
        """[products, labels], calibrated."""
        return self.scores.probabilities

    @property
    def truth(self) -> metrics.Ints:
        """Position of each product's department in the label set."""
        return _positions(self.table["department"], self.labels)

    @property
    def predicted(self) -> metrics.Ints:
        """Position of the likeliest department."""
        return self.scores.predicted

    @property
    def suggested(self) -> list[str]:
        """Name of the likeliest department."""
        return self.scores.predicted_labels

    @property
    def confidence(self) -> metrics.Floats:
        """Probability of the likeliest department."""
        return self.scores.confidence

    @property
    def right(self) -> metrics.Bools:
        """Whether the likeliest department is the true one."""
        result: metrics.Bools = self.predicted == self.truth
        return result

    @property
    def suggested_aisle(self) -> list[str]:
        """Name of the likeliest aisle of the likeliest department; empty where that has none."""
        return self.scores.predicted_aisles

    @property
    def aisle_confidence(self) -> metrics.Floats:
        """Probability of that aisle, 0 where there is none."""
        return self.scores.aisle_confidence


@dataclass(frozen=True, kw_only=True)
class Answers:
    """All that is asked of the model under evaluation."""

    labels: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    """The aisles of all departments; none: there is one level."""
    temperature: float
    aisle_temperature: float | None
    """Of the choice among a department's aisles; None: there is one level."""
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
    asked["train"] = _take(tables["train"], settings.sample_size, metrics.SEED)[0]
    logs = {name: ask(scorer, table["product_name"], name) for name, table in asked.items()}
    truth = _positions(asked["validation"]["department"], labels)
    temperature = calibration.fit_temperature(logs["validation"], truth)
    say("evaluate", f"temperature {temperature:.3f}, fitted on {len(truth):,} validation products")
    scored = {
        name: Scored(
            table=asked[name],
            scores=Scores.flat(
                labels, calibration.apply_temperature(log_probabilities, temperature)
            ),
        )
        for name, log_probabilities in logs.items()
    }
    aisle_temperature = None
    if scorer.leaves:
        scored, aisle_temperature = _with_aisles(scored, scorer)
    some, rows = _take(tables["test"], settings.sample_size, metrics.SEED)
    with scorer.without_adapter():
        base = np.exp(ask(scorer, some["product_name"], "test, untuned base"))
    return Answers(
        labels=labels,
        leaves=tuple(scorer.leaves),
        temperature=temperature,
        aisle_temperature=aisle_temperature,
        sides={side: scored[side] for side in SIDES},
        unlabelled=scored["unlabelled"],
        untuned=Scored(table=some, scores=Scores.flat(labels, base)),
        untuned_rows=rows,
    )


def _with_aisles(scored: Mapping[str, Scored], scorer: Scorer) -> tuple[dict[str, Scored], float]:
    """The same with the aisles of each likeliest department, and their temperature.

    It is fitted on the validation products whose department is found and whose aisle is known:
    of the others no aisle that is asked for is the true one.
    """
    leaves = scorer.leaves
    within = {
        name: scorer.leaf_log_probabilities(
            scorer.encode(side.table["product_name"].tolist()), side.predicted
        )
        for name, side in scored.items()
    }
    side = scored["validation"]
    true = list(zip(side.table["department"], side.table["aisle"], strict=True))
    known = {leaf: place for place, leaf in enumerate(leaves)}
    rows = [i for i, leaf in enumerate(true) if side.right[i] and leaf in known]
    temperature = 1.0
    if rows:
        places = np.array([known[true[i]] for i in rows])
        temperature = calibration.fit_temperature(within["validation"][rows], places)
    say("evaluate", f"temperature of aisles {temperature:.3f}, fitted on {len(rows):,} of them")
    return {
        name: replace(
            side,
            scores=Scores(
                side.labels,
                leaves,
                side.probabilities,
                leaf_probabilities(side.probabilities, within[name], temperature),
            ),
        )
        for name, side in scored.items()
    }, temperature


def load(model: Path, config: RunConfig) -> Scorer:
    """The scorer of a model or a bundle, as the run is configured."""
    from grocer.inference.scorer import Scorer

    return Scorer.load(
        model,
        device=config.base.device,
        compute_dtype=config.base.compute_dtype,
    )


def ask(scorer: Scorer, names: Iterable[str], what: str) -> metrics.Floats:
    """Log-probabilities [products, labels] of `names`, telling how far it has come."""
    listed = list(names)
    if not listed:
        return np.empty((0, len(scorer.labels)))
    ticker = Ticker("evaluate", len(listed), "products")
    return scorer.log_probabilities(
        scorer.encode(listed), progress=lambda done, _: ticker.at(done, what)
    )


def _take(table: pd.DataFrame, size: int, seed: int) -> tuple[pd.DataFrame, metrics.Ints]:
    """At most `size` rows drawn by `seed`, in the table's order, and where they were."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(table))[:size])
    return table.iloc[rows].reset_index(drop=True), rows


def _positions(departments: pd.Series[str], labels: tuple[str, ...]) -> metrics.Ints:
    """Each department's position in the label set."""
    place = {label: i for i, label in enumerate(labels)}
    return np.fromiter((place[name] for name in departments), np.int64, len(departments))
