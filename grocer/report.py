"""The evaluation as one page that a retail analyst can read: the verdict first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from grocer.config import GatePolicy
from grocer.page import new_plot, render, svg

# Two hues that colour-blind eyes tell apart and that stand out on white and on black.
MODEL, OTHER, INK = "#2f87d6", "#d4731c", "#010203"
NAMES = {
    "majority": "Always the largest",
    "linear": "Linear model on words",
    "base_model": "Language model, untuned",
}
MOST_LABELS = 40
"""A confusion matrix of more labels can't be read on a page; its mix-ups still can."""
SMALLEST_SLICE = 10
ROWS = 50


def page(evaluation: Mapping[str, Any], recovered: pd.DataFrame, policy: GatePolicy) -> str:
    """The whole page as HTML; product names are escaped, nothing comes from the network.

    `recovered` has product_name, purchases, suggested_department and probability, in the order
    to be shown. The gate is asked here only to show its verdict: its step asks it again.
    """
    from grocer.gate import decide

    labels = evaluation["labels"]
    return render(
        "report.html",
        decision=decide(evaluation, policy),
        e=evaluation,
        noun=evaluation["label"],
        test=evaluation["metrics"]["test"],
        contenders=_contenders(evaluation),
        contenders_plot=_contenders_plot(evaluation),
        departments=_departments(evaluation),
        heat=_heat(evaluation) if len(labels) <= MOST_LABELS else None,
        mix_ups=_mix_ups(evaluation)[:12],
        reliability_plot=_reliability_plot(evaluation),
        coverage_plot=_coverage_plot(evaluation),
        coverage=_coverage_rows(evaluation),
        slices=[s for s in evaluation["slices"] if s["products"] >= SMALLEST_SLICE][:12],
        smallest_slice=SMALLEST_SLICE,
        recovered=recovered.head(ROWS).to_dict(orient="records"),
        recovered_count=len(recovered),
    )


def _contenders(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The model's rivals, each with its pairing."""
    rivals = [
        {"name": NAMES[name], **baseline} for name, baseline in evaluation["baselines"].items()
    ]
    if (champion := evaluation["champion"]) is not None:
        rivals.append({"name": "Champion, now served", **champion})
    return sorted(rivals, key=lambda rival: -rival["accuracy"])


def _contenders_plot(evaluation: Mapping[str, Any]) -> Markup:
    """A dot and its interval for the model and for each rival."""
    rows = [{"name": "This model", **evaluation["metrics"]["test"]}, *_contenders(evaluation)]
    figure, axes = new_plot(5.6, 0.5 + 0.42 * len(rows))
    for place, row in enumerate(reversed(rows)):
        first = row is rows[0]
        colour = MODEL if first else OTHER
        low, high = row.get("accuracy_low"), row.get("accuracy_high")
        if low is not None and high is not None:
            axes.plot([100 * low, 100 * high], [place, place], color=colour, lw=2.5)
        axes.plot(100 * row["accuracy"], place, "o" if first else "s", color=colour, ms=8)
        axes.annotate(
            f"{100 * row['accuracy']:.1f}",
            (100 * row["accuracy"], place),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(rows)), [row["name"] for row in reversed(rows)])
    axes.set(xlim=(0, 103), ylim=(-0.5, len(rows) - 0.3), xlabel="right on unseen products, %")
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)
    return svg(figure, "Accuracy of the model and of what it is compared with, with intervals")


def _departments(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each label's numbers and what it is most often mistaken for, the best recall first."""
    labels, table = evaluation["labels"], evaluation["confusion"]
    rows = []
    for place, label in enumerate(labels):
        wrong = {other: table[place][i] for i, other in enumerate(labels) if i != place}
        taken = max(wrong, key=lambda other: wrong[other])
        rows.append(
            {
                "name": label,
                **evaluation["departments"][label],
                "taken_for": taken if wrong[taken] else "",
                "taken": wrong[taken],
            }
        )
    return sorted(rows, key=lambda row: -1.0 if row["recall"] is None else -row["recall"])


def _mix_ups(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Pairs of truth and wrong answer, the most frequent first."""
    labels, table = evaluation["labels"], evaluation["confusion"]
    pairs = [
        {"truth": truth, "answer": answer, "products": table[i][j], "share": table[i][j] / total}
        for i, truth in enumerate(labels)
        if (total := sum(table[i]))
        for j, answer in enumerate(labels)
        if i != j and table[i][j]
    ]
    return sorted(pairs, key=lambda pair: -pair["products"])


def _heat(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix as shares of the true label's products."""
    labels = evaluation["labels"]
    rows = []
    for place, counts in enumerate(evaluation["confusion"]):
        total = sum(counts)
        cells = [
            {
                "answer": labels[i],
                "count": count,
                "share": count / total if total else 0.0,
                # The root lets rare mix-ups be seen beside a full diagonal.
                "strength": (count / total) ** 0.5 if total else 0.0,
                "right": i == place,
            }
            for i, count in enumerate(counts)
        ]
        rows.append({"truth": labels[place], "cells": cells, "support": total})
    return rows


def _reliability_plot(evaluation: Mapping[str, Any]) -> Markup:
    """Confidence against the share that was right, each bin as large as its products are many."""
    bins = evaluation["calibration"]["reliability"]
    most = max(b["count"] for b in bins)
    figure, axes = new_plot(4.6, 3.6)
    axes.plot([0, 100], [0, 100], color=INK, lw=1, ls=":", label="as sure as it is right")
    said, right = [100 * b["confidence"] for b in bins], [100 * b["accuracy"] for b in bins]
    axes.plot(said, right, color=MODEL, lw=1.5)
    axes.scatter(said, right, s=[25 + 175 * b["count"] / most for b in bins], color=MODEL)
    axes.set(xlabel="the model's confidence, %", ylabel="really right, %")
    axes.set(xlim=(0, 102), ylim=(0, 102))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper left")
    return svg(figure, "Reliability: the model's confidence against the share that was right")


def _coverage_plot(evaluation: Mapping[str, Any]) -> Markup:
    """Accuracy where only the most confident share of products is answered."""
    points = sorted(evaluation["coverage"], key=lambda point: point["coverage"])
    answered = [100 * point["coverage"] for point in points]
    right = [100 * point["accuracy"] for point in points]
    figure, axes = new_plot(4.6, 3.6)
    axes.plot(answered, right, "o-", color=MODEL, ms=4, lw=1.8)
    axes.set(xlabel="products answered, the surest first, %", ylabel="right among them, %")
    axes.set(xlim=(0, 102), ylim=(max(0.0, min(right) - 3), 100.6))
    axes.grid(alpha=0.25)
    return svg(figure, "Accuracy against the share of products that are answered")


def _coverage_rows(evaluation: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """The points of the curve that come nearest to a few round shares."""
    points = evaluation["coverage"]
    chosen = [
        min(points, key=lambda point: abs(point["coverage"] - share))
        for share in (1.0, 0.95, 0.9, 0.8, 0.5)
    ]
    return [point for i, point in enumerate(chosen) if point not in chosen[:i]]
