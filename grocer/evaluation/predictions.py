"""Predictions of the selected classifier for every table of the split, calibrated."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from grocer.artifacts.base import SIDES, BySide
from grocer.artifacts.combination import Combination, Strategy
from grocer.artifacts.metrics import ClassifierMetrics
from grocer.config.run import RunConfig
from grocer.errors import CatalogueError, ModelError
from grocer.evaluation import classifiers, metrics
from grocer.evaluation.classifiers import ModelScores
from grocer.inference.classifier import Classifier
from grocer.inference.scores import Scores
from grocer.model.combination import fit_weight
from grocer.model.hierarchy import label_indices, leaf_probabilities
from grocer.model.linear.classifier import LinearModel, fit_linear
from grocer.progress import Ticker, say

if TYPE_CHECKING:  # torch takes seconds to import
    from grocer.inference.scorer import Scorer

UNLABELLED = "unlabelled"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Products with their scores, row by row; unlabelled products have no department."""

    table: pd.DataFrame
    scores: Scores

    @property
    def truth(self) -> metrics.Ints:
        """Index of each product's department in the label set."""
        return label_indices(self.table["department"], self.scores.labels)

    @property
    def correct(self) -> metrics.Bools:
        """Whether the predicted department is the true one."""
        result: metrics.Bools = self.scores.predicted == self.truth
        return result


@dataclass(frozen=True, kw_only=True)
class ModelPredictions:
    """All predictions of the selected classifier, and the metrics of the other ones."""

    classifiers: Mapping[Strategy, ClassifierMetrics]
    combination: Combination
    """The selected classifier."""
    linear: LinearModel
    linear_probabilities: metrics.Floats
    """Probabilities of the test products by the linear model alone, calibrated."""
    sides: BySide[Predictions]
    """Predictions for each side; those for train are a sample."""
    unlabelled: Predictions
    base_model: Predictions
    """A sample of test, predicted without the adapter and not calibrated."""
    base_model_rows: metrics.Ints
    """Rows of test in that sample."""


def read_tables(splits: Path) -> dict[str, pd.DataFrame]:
    """Return the tables `train`, `validation`, `test` and `unlabelled` of a split.

    Raises:
        CatalogueError: a side is empty, or training has a single department.
    """
    tables = {name: pd.read_parquet(splits / f"{name}.parquet") for name in (*SIDES, UNLABELLED)}
    for side in SIDES:
        if tables[side].empty:
            raise CatalogueError(
                f"{splits}: no {side} products, at least 1 is required to evaluate; add products, "
                "or change split.validation and split.test"
            )
    if tables["train"]["department"].nunique() < 2:
        raise CatalogueError(
            f"{splits}: all training products are in one department, at least 2 are required to "
            "compare; add products"
        )
    return tables


def predict(
    adapter: Path, tables: Mapping[str, pd.DataFrame], config: RunConfig
) -> ModelPredictions:
    """Return the predictions of the selected classifier for the tables of `read_tables`.

    All classifiers are fitted on validation products only. The language model is released on
    return, as a small GPU has memory for one model only.

    Raises:
        ModelError: the tables hold a department that is not a label of the adapter.
        FloatingPointError: a score is NaN.
    """
    test, rows = _sample(tables["test"], config.evaluation.sample_size)
    base = _base_model(adapter, test, config)
    scorer = load_scorer(adapter, config)
    labels = tuple(scorer.labels)
    if unknown := {name for side in SIDES for name in tables[side]["department"]} - set(labels):
        raise ModelError(
            f"{adapter} has no label {', '.join(sorted(unknown))}, which occurs in the splits: it "
            "was trained on other splits; train again, or evaluate it on those"
        )
    linear = fit_linear(tables, labels)
    train, _ = _sample(tables["train"], config.evaluation.sample_size)
    scores = score(scorer, linear, {**tables, "train": train})
    measured = classifiers.measure(scores, config.evaluation)
    strategy = classifiers.choose(
        measured, scores, config.predictor, two_levels=bool(scorer.leaves)
    )
    combination = measured[strategy].combination
    predicted = {name: scores.probabilities(combination, name) for name in scores.tables}
    if scorer.leaves:
        by_table, temperature = _with_aisles(predicted, scores.tables, scorer)
        combination = combination.model_copy(update={"aisle_temperature": temperature})
        measured[strategy] = measured[strategy].model_copy(update={"combination": combination})
    else:
        by_table = {name: Scores.flat(labels, each) for name, each in predicted.items()}
    predictions = {
        name: Predictions(table=table, scores=by_table[name])
        for name, table in scores.tables.items()
    }
    return ModelPredictions(
        classifiers=measured,
        combination=combination,
        linear=linear,
        linear_probabilities=scores.probabilities(measured["linear"].combination, "test"),
        sides=BySide(**{side: predictions[side] for side in SIDES}),
        unlabelled=predictions[UNLABELLED],
        base_model=Predictions(table=test, scores=base),
        base_model_rows=rows,
    )


def _base_model(adapter: Path, table: pd.DataFrame, config: RunConfig) -> Scores:
    """Score the names of a table without the adapter; not calibrated."""
    scorer = load_scorer(adapter, config, with_adapter=False)
    logs = log_probabilities(scorer, table["product_name"], "test, base model")
    return Scores.flat(tuple(scorer.labels), np.exp(logs))


def score(scorer: Scorer, linear: LinearModel, tables: Mapping[str, pd.DataFrame]) -> ModelScores:
    """Score the names of all tables with both models."""
    seconds: dict[str, tuple[float, float]] = {}
    adapter_logs, linear_logs = {}, {}
    for name, table in tables.items():
        start = time.perf_counter()
        adapter_logs[name] = log_probabilities(scorer, table["product_name"], name)
        middle = time.perf_counter()
        linear_logs[name] = linear.log_probabilities(table["product_name"].tolist())
        seconds[name] = middle - start, time.perf_counter() - middle
        if np.isnan(adapter_logs[name]).any():
            raise FloatingPointError(f"{name}: a log-probability is NaN")
    return ModelScores(
        labels=tuple(scorer.labels),
        tables=tables,
        adapter=adapter_logs,
        linear=linear_logs,
        adapter_seconds=seconds["test"][0],
        linear_seconds=seconds["test"][1],
    )


def _with_aisles(
    probabilities: Mapping[str, metrics.Floats], tables: Mapping[str, pd.DataFrame], scorer: Scorer
) -> tuple[dict[str, Scores], float]:
    """The scores of both levels, and the temperature of the aisles.

    The temperature is fitted on the validation products whose department is predicted correctly
    and whose aisle is known: only then is the true aisle among the candidates.
    """
    conditional = {
        name: scorer.leaf_log_probabilities(
            scorer.encode(tables[name]["product_name"].tolist()), each.argmax(axis=1)
        )
        for name, each in probabilities.items()
    }
    validation = tables["validation"]
    index = {leaf: i for i, leaf in enumerate(scorer.leaves)}
    leaves = list(zip(validation["department"], validation["aisle"], strict=True))
    predicted = [scorer.labels[i] for i in probabilities["validation"].argmax(axis=1)]
    rows = [i for i, leaf in enumerate(leaves) if predicted[i] == leaf[0] and leaf in index]
    temperature = 1.0
    if rows:
        truth = np.array([index[leaves[i]] for i in rows])
        temperature = 1 / fit_weight(conditional["validation"][rows], truth)
    say("evaluate", f"temperature of aisles {temperature:.3f}, fitted on {len(rows):,} products")
    return {
        name: Scores(
            tuple(scorer.labels),
            tuple(scorer.leaves),
            each,
            leaf_probabilities(each, conditional[name], temperature),
        )
        for name, each in probabilities.items()
    }, temperature


def predict_labels(bundle: Path, names: Iterable[str], config: RunConfig) -> list[str]:
    """Return the most probable label of each name by the champion, on the device of the run."""
    device, dtype = config.base.device, config.base.compute_dtype
    classifier = Classifier.load(bundle, device=device, compute_dtype=dtype)
    encoded = classifier.encode(list(names))
    ticker = Ticker("evaluate", len(encoded), "products")
    probabilities = classifier.probabilities(encoded, lambda n: ticker.at(n, "test, champion"))
    return [classifier.labels[i] for i in probabilities.argmax(axis=1)]


def load_scorer(model: Path, config: RunConfig, *, with_adapter: bool = True) -> Scorer:
    """Return the scorer of a train artifact, as the run is configured."""
    from grocer.inference.scorer import Scorer

    return Scorer.load(
        model,
        device=config.base.device,
        compute_dtype=config.base.compute_dtype,
        with_adapter=with_adapter,
    )


def log_probabilities(scorer: Scorer, names: Iterable[str], task: str) -> metrics.Floats:
    """Return log-probabilities [products, labels] of `names`; report the progress as `task`."""
    encoded = scorer.encode(list(names))
    ticker = Ticker("evaluate", len(encoded), "products")
    return scorer.log_probabilities(encoded, progress=lambda done: ticker.at(done, task))


def _sample(table: pd.DataFrame, size: int) -> tuple[pd.DataFrame, metrics.Ints]:
    """At most `size` random rows, in the table's order, and their positions."""
    rows = np.sort(np.random.default_rng(metrics.SEED).permutation(len(table))[:size])
    return table.iloc[rows].reset_index(drop=True), rows
