"""The evaluation as one page that a retail analyst can read: the verdict first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from grocer.config.stages import GatePolicy
from grocer.reports.html import BLUE, INK, ORANGE, new_plot, render, svg

MOST_LABELS = 40
"""A confusion matrix of more labels can't be read on a page; its mix-ups still can."""
FIRST_LABELS = 20
"""Of more labels, these stand open in the table, and the rest folded."""
SMALLEST_SLICE = 10
ROWS = 50


def page(evaluation: Mapping[str, Any], recovered: pd.DataFrame, policy: GatePolicy) -> str:
    """The whole page as HTML; product names are escaped, nothing comes from the network.

    `recovered` has product_name, purchases, suggested_department and probability, in the order
    to be shown. The gate is asked here only to show its verdict: its step asks it again.
    """
    from grocer.gate.rules import decide

    labels, test = evaluation["labels"], evaluation["metrics"]["test"]
    rivals = _rivals(evaluation)
    return render(
        "report.html",
        decision=decide(evaluation, policy),
        e=evaluation,
        noun=evaluation["label"],
        test=test,
        rivals=rivals,
        rivals_plot=_rivals_plot(test, rivals),
        departments=_departments(evaluation),
        most_rows=MOST_LABELS if len(labels) <= MOST_LABELS else FIRST_LABELS,
        heat=_heat(evaluation) if len(labels) <= MOST_LABELS else None,
        mix_ups=_mix_ups(evaluation)[:12],
        reliability_plot=_reliability_plot(evaluation),
        coverage_plot=_coverage_plot(evaluation),
        coverage=_coverage_rows(evaluation),
        slices=_harder_names(evaluation),
        smallest_slice=SMALLEST_SLICE,
        recovered=recovered.head(ROWS).to_dict(orient="records"),
        recovered_count=len(recovered),
        aisles=_aisles(evaluation),
    )


def _rivals(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the model is compared with, the best first, and how the model stands to it."""
    names = {
        "majority": f"Always the largest {evaluation['label']}",
        "linear": "Linear model on words and letters",
        "base_model": "Language model before training",
    }
    found = {names[name]: baseline for name, baseline in evaluation["baselines"].items()}
    if evaluation["champion"] is not None:
        found["Champion, the one now served"] = evaluation["champion"]
    rivals = []
    for name, measured in found.items():
        paired = measured["paired"]
        ahead = paired["only_model_right"] > paired["only_baseline_right"]
        clear = paired["p_value"] < 1 - evaluation["confidence"]
        standing = ("ahead" if ahead else "behind") if clear else "level"
        rivals.append({**measured, "name": name, "standing": standing})
    return sorted(rivals, key=lambda rival: -rival["accuracy"])


def _rivals_plot(test: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]]) -> Markup:
    """A dot in its interval for the model and for each rival, named above its line."""
    rows = [{**test, "name": "This model"}, *rivals]
    figure, axes = new_plot("Accuracy and its interval", 0.8 + 0.56 * len(rows))
    for place, row in enumerate(reversed(rows)):
        low, at, high = (100 * row[f"accuracy{end}"] for end in ("_low", "", "_high"))
        colour = BLUE if row is rows[0] else ORANGE
        axes.plot([0, 100], [place, place], color=INK, lw=1, alpha=0.15)
        axes.plot(
            [low, high], [place, place], color=colour, lw=8, alpha=0.45, solid_capstyle="butt"
        )
        axes.plot(at, place, "|", color=colour, ms=13, mew=2.5)
        axes.text(0, place + 0.26, row["name"], weight="bold" if row is rows[0] else "normal")
        axes.text(100, place + 0.26, f"{at:.1f} ({low:.1f} to {high:.1f})", ha="right")
    axes.set(xlim=(-1, 101), ylim=(-0.4, len(rows) - 0.3), xlabel="right on unseen products, %")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return svg(figure)


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
    return sorted(rows, key=lambda row: -row["recall"] if row["recall"] is not None else 1.0)


def _aisles(evaluation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The numbers of each aisle, the worst recall first, those of few products behind.

    None where there is one level.
    """
    rows = evaluation["aisles"]["aisles"] if evaluation["aisles"] else []
    return sorted(rows, key=lambda row: (row["support"] < SMALLEST_SLICE, row["recall"]))


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


def _harder_names(evaluation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Slices by the name, the worst first; departments have a table of their own."""
    by_name = [each for each in evaluation["slices"] if each["slice"] != "department"]
    return [each for each in by_name if each["products"] >= SMALLEST_SLICE]


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
    figure, axes = new_plot("Confidence against the share that was right")
    axes.plot([0, 100], [0, 100], color=INK, lw=1, ls=":", label="as sure as it is right")
    said, right = [100 * b["confidence"] for b in bins], [100 * b["accuracy"] for b in bins]
    axes.plot(said, right, color=BLUE, lw=1.5)
    sizes = [25 + 175 * b["count"] / most for b in bins]
    axes.scatter(said, right, s=sizes, color=BLUE, clip_on=False)
    axes.set(xlabel="the model's confidence, %", ylabel="really right, %")
    axes.set(xlim=(0, 102), ylim=(0, 102))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper left")
    return svg(figure)


def _coverage_plot(evaluation: Mapping[str, Any]) -> Markup:
    """Accuracy where only the most confident share of products is answered."""
    points = sorted(evaluation["coverage"], key=lambda point: point["coverage"])
    answered = [100 * point["coverage"] for point in points]
    right = [100 * point["accuracy"] for point in points]
    figure, axes = new_plot("Accuracy by the share that is answered")
    axes.plot(answered, right, "o-", color=BLUE, ms=4, lw=1.8)
    axes.set(xlabel="products answered, the surest first, %", ylabel="right among them, %")
    axes.set(xlim=(0, 102), ylim=(max(0.0, min(right) - 3), 100.6))
    axes.grid(alpha=0.25)
    return svg(figure)


def _coverage_rows(evaluation: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """The points of the curve that come nearest to a few round shares."""
    points = evaluation["coverage"]
    chosen = [
        min(points, key=lambda point: abs(point["coverage"] - share))
        for share in (1.0, 0.95, 0.9, 0.8, 0.5)
    ]
    return [point for i, point in enumerate(chosen) if point not in chosen[:i]]
