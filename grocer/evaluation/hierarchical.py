"""How well the second level does: whether the aisle is right, department included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from grocer.config.stages import EvaluationConfig
from grocer.evaluation import baselines, metrics
from grocer.evaluation.predictions import Answers, Scored
from grocer.model.hierarchy import leaf_name
from grocer.progress import say

MIX_UPS = 12


def measure(given: Answers, train: pd.DataFrame, settings: EvaluationConfig) -> dict[str, Any]:
    """What `evaluation.json` tells of aisles: of products whose aisle is known.

    An answer is right where department and aisle both are, so aisle accuracy is at most
    department accuracy on the same products. An aisle without training products can't be
    answered, so its products count as wrong.
    """
    test = given.sides["test"]
    table = _table(test)
    rows = [
        {
            "department": department,
            "aisle": aisle,
            "support": len(found),
            "recall": float(found["right"].mean()),
            "precision": _precision(table, department, aisle),
        }
        for department, shelf in table.groupby("department")
        for aisle, found in shelf.groupby("aisle")
    ]
    return {
        "temperature": given.aisle_temperature,
        "labels": {
            label: [aisle for department, aisle in given.leaves if department == label]
            for label in given.labels
        },
        "metrics": {side: _metrics(scored, settings) for side, scored in given.sides.items()},
        "linear": _linear(table, train, settings),
        "aisles": rows,
        "mix_ups": _mix_ups(table),
    }


def _table(scored: Scored) -> pd.DataFrame:
    """Products with a known aisle: the truth and the answer, at both levels."""
    table = scored.table[["product_name", "department", "aisle"]].assign(
        said_department=scored.suggested,
        said_aisle=scored.suggested_aisle,
        confidence=scored.aisle_confidence,
        right_department=scored.right,
    )
    table["right"] = table["right_department"] & (table["said_aisle"] == table["aisle"])
    return table[table["aisle"] != ""].reset_index(drop=True)


def _metrics(scored: Scored, settings: EvaluationConfig) -> dict[str, Any] | None:
    """None: the aisle of none of these products is known."""
    table = _table(scored)
    if table.empty:
        return None
    right = table["right"].to_numpy()
    inside = right[table["right_department"].to_numpy()]
    true, said = _codes(table)
    bins = metrics.reliability(table["confidence"].to_numpy(), right)
    return {
        **metrics.accuracy(right, settings.confidence),
        "department_accuracy": float(table["right_department"].mean()),
        "accuracy_within": float(inside.mean()) if len(inside) else None,
        "macro_f1": metrics.macro_f1(true, said),
        "ece": metrics.expected_calibration_error(bins),
    }


def _codes(table: pd.DataFrame) -> tuple[metrics.Ints, metrics.Ints]:
    """True and answered aisles as numbers; an aisle is told by its department too."""
    true = _spelled(table, "department", "aisle")
    said = _spelled(table, "said_department", "said_aisle")
    _, codes = np.unique([*true, *said], return_inverse=True)
    first, second = np.split(codes.astype(np.int64), 2)
    return first, second


def _spelled(table: pd.DataFrame, department: str, aisle: str) -> list[str]:
    return [leaf_name(*pair) for pair in zip(table[department], table[aisle], strict=True)]


def _precision(table: pd.DataFrame, department: object, aisle: object) -> float | None:
    """The share that is right of the products put into the aisle; None: there are none."""
    put = table[(table["said_department"] == department) & (table["said_aisle"] == aisle)]
    return None if put.empty else float(put["right"].mean())


def _linear(
    table: pd.DataFrame, train: pd.DataFrame, settings: EvaluationConfig
) -> dict[str, Any] | None:
    """The linear model that learns aisles outright; None: there are not two to tell apart."""
    known = train[train["aisle"] != ""]
    learnt = _spelled(known, "department", "aisle")
    if table.empty or len(set(learnt)) < 2:
        return None
    say("evaluate", f"fitting the linear baseline on aisles, {len(set(learnt)):,} of them")
    said = baselines.linear(known["product_name"], learnt, table["product_name"])
    truth = _spelled(table, "department", "aisle")
    return baselines.compare(truth, said, table["right"].to_numpy(), settings)


def _mix_ups(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The most frequent pairs of true and answered aisle."""
    columns = ["department", "aisle", "said_department", "said_aisle"]
    wrong = table[~table["right"]].groupby(columns, as_index=False).size()
    worst = wrong.sort_values("size", ascending=False, kind="stable").head(MIX_UPS)
    rows = worst.rename(columns={"size": "products"}).to_dict(orient="records")
    return [{str(column): value for column, value in row.items()} for row in rows]
