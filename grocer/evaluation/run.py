"""The evaluate stage: measure the classifiers on products that they were not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from grocer.artifacts.adapter import Adapter
from grocer.artifacts.base import SIDES, BySide
from grocer.artifacts.evaluation import Evaluation, EvaluationInputs
from grocer.artifacts.metrics import (
    Accuracy,
    BaselineComparison,
    ConfidentError,
    RawLabels,
    Reference,
)
from grocer.artifacts.splits import Splits
from grocer.config.run import RunConfig
from grocer.config.stages import EvaluationConfig
from grocer.evaluation import (
    baselines,
    coverage,
    hierarchical,
    known_products,
    metrics,
    paired,
    slices,
)
from grocer.evaluation.champion import Champion
from grocer.evaluation.predictions import ModelPredictions, Predictions, predict, read_tables
from grocer.inference import drift
from grocer.inference.scores import Scores
from grocer.ingest.corrections import UNCORRECTED
from grocer.io.atomic import write_json
from grocer.model.out_of_memory import explain_out_of_memory
from grocer.progress import say
from grocer.release.manifest import JUDGED, judged_digests
from grocer.reports.evaluation import evaluation_page

TOP = 3
"""Number of departments in predictions.parquet for each product, most probable first."""
CONFIDENT_ERRORS = 50
"""Maximum number of errors listed, most confident first: the label itself may be wrong."""


@explain_out_of_memory()
def run(
    adapter: Adapter, splits: Splits, config: RunConfig, out: Path, champion: Champion | None = None
) -> Evaluation:
    """Measure the classifiers on the splits and select one.

    Writes evaluation.json, its digests, the linear model, tables and report.html into `out`. All
    metrics are computed from calibrated probabilities.

    Args:
        champion: the deployed bundle, which is measured on the same test products.

    Raises:
        CatalogueError: a side of the split is empty, or training has a single department.
        ModelError: a department of the splits is not a label of the model, a score is not finite,
            or the GPU is out of memory.
        FloatingPointError: a score is NaN, or probabilities do not sum to 1.
    """
    tables = read_tables(splits.directory)
    predictions = predict(adapter.directory, tables, config)
    inputs = EvaluationInputs(model=adapter.digest, splits=splits.digest)
    evaluation = _measure(inputs, predictions, tables, config, champion)
    _write(evaluation, predictions, config, adapter, out)
    names = pd.concat([table["normalised_name"] for table in tables.values()])
    known_products.save(names, out)
    _say_result(evaluation)
    return evaluation


def _measure(
    inputs: EvaluationInputs,
    predictions: ModelPredictions,
    tables: Mapping[str, pd.DataFrame],
    config: RunConfig,
    champion: Champion | None,
) -> Evaluation:
    from sklearn.metrics import confusion_matrix

    test, validation = predictions.sides.test, predictions.sides.validation
    settings, labels = config.evaluation, test.scores.labels
    matrix = confusion_matrix(test.truth, test.scores.predicted, labels=range(len(labels)))
    products = pd.concat([tables[side] for side in SIDES], ignore_index=True)
    confidence = test.scores.confidence
    return Evaluation(
        label=config.catalogue.label,
        confidence=settings.confidence,
        digests=inputs,
        labels=labels,
        combination=predictions.combination,
        selected_by="validation log-loss" if config.predictor.strategy == "auto" else "configured",
        classifiers=dict(predictions.classifiers),
        metrics=BySide(
            **{
                side: metrics.measure(
                    each.scores.probabilities,
                    each.truth,
                    each.table["purchases"].to_numpy(dtype=np.int64),
                    slices.first_words(each.table["product_name"]),
                    settings,
                )
                for side, each in predictions.sides
            }
        ),
        departments=metrics.departments(matrix, labels),
        confusion=tuple(map(tuple, matrix.tolist())),
        reliability=metrics.reliability(confidence, test.correct),
        coverage=coverage.curve(validation.scores.confidence, confidence, test.correct),
        operating_points=coverage.operating_points(
            (validation.scores.confidence, validation.correct),
            (confidence, test.correct),
            settings.confidence,
        ),
        confident_errors=_confident_errors(test),
        reference=_reference(predictions, products),
        baselines=_baselines(predictions, tables["train"], settings),
        champion=None if champion is None else champion.compare(inputs, test, config),
        row_split_leakage=baselines.row_split_leakage(
            products["department"], products["purchases"]
        ),
        aisles=hierarchical.measure(predictions, tables["train"], settings)
        if test.scores.leaves
        else None,
        slices=slices.accuracies(
            test.table.assign(correct=test.correct), tables["train"]["product_name"]
        ),
        raw_labels=_raw_labels(test, settings) if UNCORRECTED in test.table else None,
    )


def _reference(predictions: ModelPredictions, products: pd.DataFrame) -> Reference:
    """Return what the predictor compares its answers with, from the test products."""
    test = predictions.sides.test
    labels = test.scores.labels
    shares = np.bincount(test.scores.predicted, minlength=len(labels)) / len(test.table)
    measured = drift.measure(
        test.table["product_name"].tolist(), test.scores.probabilities, predictions.linear.features
    )
    purchases = test.table["purchases"].to_numpy(dtype=np.float64)
    return Reference(
        departments=dict(zip(labels, shares.tolist(), strict=True)),
        purchases=_purchase_shares(products, labels),
        mean_confidence=float(test.scores.confidence.mean()),
        drift=drift.reference(measured, purchases, len(products)),
    )


def _raw_labels(test: Predictions, settings: EvaluationConfig) -> RawLabels:
    """Measure the predictions against the labels without corrections."""
    raw = test.table[UNCORRECTED].to_numpy(dtype=object)
    known = raw != ""
    correct = raw == np.asarray(test.scores.predicted_labels, dtype=object)
    return RawLabels(
        corrected=int((raw != test.table["department"].to_numpy(dtype=object)).sum()),
        accuracy=Accuracy(**metrics.accuracy(correct[known], settings.confidence))
        if known.any()
        else None,
    )


def _purchase_shares(products: pd.DataFrame, labels: Sequence[str]) -> dict[str, float]:
    """The share of purchases by department; of products if none was purchased."""
    purchases = products["purchases"].to_numpy(dtype=np.float64)
    weights = purchases if purchases.sum() > 0 else np.ones_like(purchases)
    counts = pd.Series(weights).groupby(products["department"].to_numpy()).sum()
    return {label: float(counts.get(label, 0.0) / weights.sum()) for label in labels}


def _baselines(
    predictions: ModelPredictions, train: pd.DataFrame, settings: EvaluationConfig
) -> dict[str, BaselineComparison]:
    test, sample = predictions.sides.test, predictions.base_model
    majority = [baselines.majority(train["department"])] * len(test.table)
    linear = Scores.flat(test.scores.labels, predictions.linear_probabilities)
    log_loss = paired.log_loss(test.scores.probabilities, linear.probabilities, test.truth)
    truth, correct = test.table["department"], test.correct
    return {
        "majority": baselines.compare(truth, majority, correct, settings),
        "linear": baselines.compare(truth, linear.predicted_labels, correct, settings, log_loss),
        "base_model": baselines.compare(
            sample.table["department"],
            sample.scores.predicted_labels,
            correct[predictions.base_model_rows],
            settings,
        ),
    }


def _confident_errors(test: Predictions) -> tuple[ConfidentError, ...]:
    """The wrong predictions with the highest confidence."""
    wrong = test.table[["product_name", "department"]].assign(
        predicted=test.scores.predicted_labels, probability=test.scores.confidence
    )[~test.correct]
    worst = wrong.sort_values("probability", ascending=False, kind="stable").head(CONFIDENT_ERRORS)
    return tuple(map(ConfidentError.model_validate, worst.to_dict(orient="records")))


def _write(
    evaluation: Evaluation,
    predictions: ModelPredictions,
    config: RunConfig,
    adapter: Adapter,
    out: Path,
) -> None:
    evaluation.write(out)
    write_json(out / JUDGED, judged_digests(evaluation, config))
    predictions.linear.save(out)
    sides = [_side_table(side, each) for side, each in predictions.sides]
    pd.concat(sides).to_parquet(out / "predictions.parquet", index=False, compression="zstd")
    labels = list(evaluation.labels)
    matrix = pd.DataFrame(evaluation.confusion, index=labels, columns=labels)
    matrix.to_csv(out / "confusion.csv", index_label=config.catalogue.label)
    recovered = _recovered(predictions.unlabelled)
    recovered.to_csv(out / "recovered.csv", index=False)
    page = evaluation_page(evaluation, recovered, config.gate, adapter)
    (out / "report.html").write_text(page, encoding="utf-8")


def _side_table(side: str, predictions: Predictions) -> pd.DataFrame:
    """One row per product: the truth, the prediction, and the most probable departments."""
    table, scores = predictions.table, predictions.scores
    order, probabilities = scores.top(TOP)
    columns = ["product_id", "product_name", "purchases", "department"]
    result = table.assign(split=side)[["split", *columns]].assign(
        predicted=scores.predicted_labels,
        probability=scores.confidence,
        department_probability=scores.probabilities[np.arange(len(table)), predictions.truth],
        ranked_departments=np.array(scores.labels, dtype=object)[order].tolist(),
        ranked_probabilities=list(probabilities),
    )
    if scores.leaves:
        result = result.assign(
            aisle=table["aisle"],
            predicted_aisle=scores.predicted_aisles,
            aisle_probability=scores.aisle_confidence,
        )
    return result


def _recovered(unlabelled: Predictions) -> pd.DataFrame:
    """The unlabelled products with their predicted department, most purchased first."""
    scores = unlabelled.scores
    recovered = unlabelled.table[["product_id", "product_name", "purchases"]].assign(
        suggested_department=scores.predicted_labels, probability=scores.confidence
    )
    if scores.leaves:
        recovered = recovered.assign(
            suggested_aisle=scores.predicted_aisles, aisle_probability=scores.aisle_confidence
        )
    return recovered.sort_values(["purchases", "probability"], ascending=False, ignore_index=True)


def _say_result(evaluation: Evaluation) -> None:
    selected = evaluation.combination.strategy
    _say_accuracy(f"test accuracy ({selected})", evaluation.metrics.test, evaluation.baselines)
    if (raw := evaluation.raw_labels) is not None and raw.accuracy is not None:
        name = f"test accuracy on uncorrected labels ({raw.corrected:,} corrected)"
        _say_accuracy(name, raw.accuracy, {})
    classifiers = " · ".join(
        f"{name} {100 * each.accuracy:.1f} % ({each.log_loss:.3f}, {each.names_per_second:,.0f}/s)"
        for name, each in evaluation.classifiers.items()
    )
    say("evaluate", f"test accuracy (log-loss, names per second): {classifiers}")
    if evaluation.aisles is None:
        return
    if evaluation.aisles.metrics.test is None:
        say("evaluate", "aisles: no test product has a known aisle")
        return
    linear = {"linear": evaluation.aisles.linear} if evaluation.aisles.linear else {}
    _say_accuracy("test accuracy of aisles", evaluation.aisles.metrics.test, linear)


def _say_accuracy(name: str, test: Accuracy, baselines: Mapping[str, Accuracy]) -> None:
    others = ", ".join(f"{key} {100 * each.accuracy:.1f}" for key, each in baselines.items())
    say(
        "evaluate",
        f"{name} {100 * test.accuracy:.1f} % of {test.products:,} products "
        f"({100 * test.accuracy_low:.1f} to {100 * test.accuracy_high:.1f})"
        f"{' · ' if others else ''}{others}",
    )
