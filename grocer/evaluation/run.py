"""Evaluate: what the model is worth on products that it has never seen, written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grocer.artifacts.step import digest_of
from grocer.config.run import RunConfig
from grocer.config.stages import EvaluationConfig
from grocer.evaluation import baselines, metrics, slices
from grocer.evaluation import hierarchical as aisles
from grocer.evaluation import predictions as answers
from grocer.evaluation.predictions import SIDES, Answers, Scored
from grocer.io.atomic import tree_digest, tree_digests, write_json
from grocer.progress import say
from grocer.reports import evaluation as report

RANKED = 3
"""Likeliest departments that predictions.parquet keeps for each product."""
CONFIDENT_ERRORS = 50
"""Errors that are listed, the most confident first: candidates for a wrong label."""


def evaluate(
    model: Path, splits: Path, config: RunConfig, out: Path, champion: Path | None = None
) -> dict[str, Any]:
    """Measure the adapter in `model` on `splits`; write evaluation.json, tables and a page.

    Every number is of calibrated probabilities. `champion` is the bundle now served; it is
    asked about the same test products.

    Raises:
        CatalogueError: a side of the split is empty, or training has a single department.
        ModelError: the model can't answer a department of the splits, or gives a score that is
            not a number.
        FloatingPointError: a metric is not finite.
    """
    tables = answers.read(splits)
    given = answers.collect(model, tables, config)
    evaluation = {
        "schema": 1,
        "label": config.catalogue.label,
        "confidence": config.evaluation.confidence,
        "digests": {"model": digest_of(model), "splits": digest_of(splits)},
        **_measured(given, config.evaluation),
        **_compared(given, tables, config.evaluation),
        "aisles": aisles.measure(given, tables["train"], config.evaluation)
        if given.leaves
        else None,
        "champion": None if champion is None else _champion(champion, given, config),
        "slices": slices.accuracies(
            given.sides["test"].table.assign(right=given.sides["test"].right),
            tables["train"]["product_name"],
        ),
    }
    metrics.require_finite(evaluation)
    _write(evaluation, given, config, out)
    _say_result(evaluation["metrics"]["test"], evaluation["baselines"])
    if evaluation["aisles"]:
        _say_aisles(evaluation["aisles"])
    return evaluation


def _measured(given: Answers, settings: EvaluationConfig) -> dict[str, Any]:
    """What is told of the model alone."""
    test = given.sides["test"]
    table = metrics.confusion(test.truth, test.predicted, len(given.labels))
    answered = np.bincount(test.predicted, minlength=len(given.labels)) / len(test.table)
    return {
        "labels": list(given.labels),
        "metrics": {
            side: metrics.measure(
                scored.probabilities,
                scored.truth,
                scored.table["purchases"].to_numpy(dtype=np.int64),
                settings,
            )
            for side, scored in given.sides.items()
        },
        "departments": metrics.departments(table, given.labels),
        "confusion": table.tolist(),
        "calibration": {
            "temperature": given.temperature,
            "reliability": metrics.reliability(test.confidence, test.right),
        },
        "coverage": metrics.coverage(test.confidence, test.right),
        "confident_errors": _confident_errors(test),
        "reference": {
            "departments": dict(zip(given.labels, answered.tolist(), strict=True)),
            "mean_confidence": float(test.confidence.mean()),
        },
    }


def _compared(
    given: Answers, tables: Mapping[str, pd.DataFrame], settings: EvaluationConfig
) -> dict[str, Any]:
    """The model against the baselines, and what the study's way of splitting would show."""
    train, test, untuned = tables["train"], given.sides["test"], given.untuned
    say("evaluate", f"fitting the linear baseline on {len(train):,} training products")
    answered: dict[str, Iterable[str]] = {
        "majority": [baselines.majority(train["department"])] * len(test.table),
        "linear": baselines.linear(
            train["product_name"], train["department"], test.table["product_name"]
        ),
    }
    paired = test.right[given.untuned_rows]
    products = pd.concat([tables[side] for side in SIDES], ignore_index=True)
    return {
        "baselines": {
            **{
                name: baselines.compare(test.table["department"], answer, test.right, settings)
                for name, answer in answered.items()
            },
            "base_model": baselines.compare(
                untuned.table["department"], untuned.suggested, paired, settings
            ),
        },
        "as_the_study_measured": baselines.as_the_study_measured(
            products["department"], products["purchases"], metrics.SEED
        ),
    }


def _champion(champion: Path, given: Answers, config: RunConfig) -> dict[str, Any]:
    """The bundle now served on the same test products; its label set may be another."""
    test = given.sides["test"]
    scorer = answers.load(champion, config)
    found = answers.ask(scorer, test.table["product_name"], "test, champion").argmax(axis=1)
    said = np.asarray(scorer.labels, dtype=object)[found]
    return {
        "digest": tree_digest(tree_digests(champion)),
        **baselines.compare(test.table["department"], said, test.right, config.evaluation),
    }


def _confident_errors(test: Scored) -> list[dict[str, Any]]:
    """The errors with the highest probability of what was answered."""
    wrong = test.table[["product_name", "department"]].assign(
        predicted=test.suggested, probability=test.confidence
    )[~test.right]
    worst = wrong.sort_values("probability", ascending=False, kind="stable").head(CONFIDENT_ERRORS)
    rows = worst.to_dict(orient="records")
    return [{str(column): value for column, value in row.items()} for row in rows]


def _write(evaluation: Mapping[str, Any], given: Answers, config: RunConfig, out: Path) -> None:
    """Everything that the step leaves behind."""
    write_json(out / "evaluation.json", evaluation)
    sides = [_predictions(side, scored) for side, scored in given.sides.items()]
    pd.concat(sides).to_parquet(out / "predictions.parquet", index=False, compression="zstd")
    labels = given.labels
    table = pd.DataFrame(evaluation["confusion"], index=list(labels), columns=list(labels))
    table.to_csv(out / "confusion.csv", index_label=config.catalogue.label)
    recovered = _recovered(given.unlabelled)
    recovered.to_csv(out / "recovered.csv", index=False)
    page = report.page(evaluation, recovered, config.gate)
    (out / "report.html").write_text(page, encoding="utf-8")


def _predictions(side: str, scored: Scored) -> pd.DataFrame:
    """One row a product: the truth, the answer, and the likeliest departments in order."""
    ranked = np.argsort(-scored.probabilities, axis=1, kind="stable")[:, :RANKED]
    rows = np.arange(len(ranked))
    told = pd.DataFrame(
        {
            "split": side,
            **{
                name: scored.table[name]
                for name in ("product_id", "product_name", "purchases", "department")
            },
            "predicted": scored.suggested,
            "probability": scored.confidence,
            "department_probability": scored.probabilities[rows, scored.truth],
            "ranked_departments": [[scored.labels[i] for i in row] for row in ranked],
            "ranked_probabilities": list(np.take_along_axis(scored.probabilities, ranked, axis=1)),
        }
    )
    if not scored.leaves:
        return told
    return told.assign(
        aisle=scored.table["aisle"],
        predicted_aisle=scored.suggested_aisle,
        aisle_probability=scored.aisle_confidence,
    )


def _recovered(unlabelled: Scored) -> pd.DataFrame:
    """Products without a department and the one suggested, the most bought first."""
    columns = ["product_id", "product_name", "purchases"]
    found = unlabelled.table[columns].assign(
        suggested_department=unlabelled.suggested, probability=unlabelled.confidence
    )
    if unlabelled.leaves:
        found = found.assign(
            suggested_aisle=unlabelled.suggested_aisle,
            aisle_probability=unlabelled.aisle_confidence,
        )
    return found.sort_values(["purchases", "probability"], ascending=False, ignore_index=True)


def _say_result(test: Mapping[str, float], compared: Mapping[str, Any]) -> None:
    """The result in one line."""
    others = ", ".join(f"{name} {100 * b['accuracy']:.1f}" for name, b in compared.items())
    say(
        "evaluate",
        f"{100 * test['accuracy']:.1f} % of {test['products']:,} unseen products right "
        f"({100 * test['accuracy_low']:.1f} to {100 * test['accuracy_high']:.1f}) · {others}",
    )


def _say_aisles(measured: Mapping[str, Any]) -> None:
    """The second level in one line."""
    test, linear = measured["metrics"]["test"], measured["linear"]
    if test is None:
        say("evaluate", "aisles: the aisle of no test product is known")
        return
    told = f" · linear {100 * linear['accuracy']:.1f}" if linear else ""
    say(
        "evaluate",
        f"{100 * test['accuracy']:.1f} % of {test['products']:,} have the right aisle too "
        f"({100 * test['accuracy_low']:.1f} to {100 * test['accuracy_high']:.1f}){told}",
    )
