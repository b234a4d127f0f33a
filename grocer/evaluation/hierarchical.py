"""Metrics of the second label level: whether department and aisle are both correct."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from grocer.artifacts.base import BySide
from grocer.artifacts.metrics import (
    AisleConfusion,
    AisleMetrics,
    AisleRow,
    BaselineComparison,
    HierarchicalMetrics,
)
from grocer.config.stages import EvaluationConfig
from grocer.evaluation import baselines, metrics
from grocer.evaluation.predictions import ModelPredictions, Predictions
from grocer.model.hierarchy import leaf_name
from grocer.progress import say

CONFUSIONS = 12
"""Maximum number of confusions listed."""
_TRUE = ["department", "aisle"]
_PREDICTED = ["predicted_department", "predicted_aisle"]


def measure(
    predictions: ModelPredictions, train: pd.DataFrame, settings: EvaluationConfig
) -> HierarchicalMetrics:
    """Return the metrics of products whose aisle is known.

    A prediction is correct if both department and aisle are correct. An aisle without training
    products cannot be predicted, so its products count as wrong.
    """
    scores, test = predictions.sides.test.scores, _table(predictions.sides.test)
    precision = test.groupby(_PREDICTED)["correct"].mean()
    return HierarchicalMetrics(
        labels={
            label: tuple(aisle for department, aisle in scores.leaves if department == label)
            for label in scores.labels
        },
        metrics=BySide(
            **{side: _metrics(_table(each), settings) for side, each in predictions.sides}
        ),
        linear=_linear(test, train, settings),
        aisles=tuple(
            AisleRow(
                department=str(department),
                aisle=str(aisle),
                support=len(products),
                recall=float(products["correct"].mean()),
                precision=precision.get((department, aisle)),  # None: it is never predicted
            )
            for (department, aisle), products in test.groupby(_TRUE)
        ),
        confusions=_confusions(test),
    )


def _table(predictions: Predictions) -> pd.DataFrame:
    """The products whose aisle is known, with truth and prediction of both levels."""
    scores = predictions.scores
    table = predictions.table[["product_name", "department", "aisle"]].assign(
        predicted_department=scores.predicted_labels,
        predicted_aisle=scores.predicted_aisles,
        confidence=scores.aisle_confidence,
        correct_department=predictions.correct,
    )
    table["correct"] = table["correct_department"] & (table["predicted_aisle"] == table["aisle"])
    return table[table["aisle"] != ""].reset_index(drop=True)


def _metrics(table: pd.DataFrame, settings: EvaluationConfig) -> AisleMetrics | None:
    if table.empty:
        return None
    correct = table["correct"].to_numpy()
    within = correct[table["correct_department"].to_numpy()]
    return AisleMetrics(
        **metrics.accuracy(correct, settings.confidence),
        department_accuracy=float(table["correct_department"].mean()),
        accuracy_within=float(within.mean()) if len(within) else None,
        macro_f1=metrics.macro_f1(_leaf_names(table, _TRUE), _leaf_names(table, _PREDICTED)),
        **dict(metrics.calibration(table["confidence"].to_numpy(), correct)),
    )


def _leaf_names(table: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """Names of department and aisle, as two departments may have aisles of the same name."""
    return [leaf_name(*pair) for pair in zip(*(table[column] for column in columns), strict=True)]


def _linear(
    table: pd.DataFrame, train: pd.DataFrame, settings: EvaluationConfig
) -> BaselineComparison | None:
    """A linear SVM fitted on aisles; None if fewer than two aisles have training products."""
    known = train[train["aisle"] != ""]
    labels = _leaf_names(known, _TRUE)
    if table.empty or len(set(labels)) < 2:
        return None
    say("evaluate", f"fitting the linear baseline on {len(set(labels)):,} aisles")
    predicted = baselines.linear_svm(known["product_name"], labels, table["product_name"])
    truth = _leaf_names(table, _TRUE)
    return baselines.compare(truth, predicted, table["correct"].to_numpy(), settings)


def _confusions(table: pd.DataFrame) -> tuple[AisleConfusion, ...]:
    """The most frequent pairs of true and predicted aisle."""
    wrong = table[~table["correct"]].groupby([*_TRUE, *_PREDICTED], as_index=False).size()
    most = wrong.sort_values("size", ascending=False, kind="stable").head(CONFUSIONS)
    rows = most.rename(columns={"size": "products"}).to_dict(orient="records")
    return tuple(map(AisleConfusion.model_validate, rows))
