"""The evaluation report: the gate's decision, then metrics, errors and calibration."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from grocer.artifacts.adapter import Adapter
from grocer.artifacts.combination import Strategy
from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.metrics import Accuracy
from grocer.config.stages import GatePolicy
from grocer.gate.rules import decide
from grocer.reports.html import BLUE, INK, ORANGE, new_plot, render, svg

STRATEGIES: dict[Strategy, str] = {
    "adapter": "Adapter",
    "linear": "Linear model (TF-IDF)",
    "ensemble": "Ensemble",
    "cascade": "Cascade",
}
"""Names of the classifiers, in the order of the table."""
MAX_MATRIX_LABELS = 40
"""A confusion matrix of more labels does not fit on the page."""
FIRST_LABELS = 20
"""Rows of the table of departments that are not collapsed if there is no matrix."""
MIN_SLICE = 10
"""Minimum products of a slice that is shown."""
MAX_RECOVERED = 50
MAX_CONFUSIONS = 12


def evaluation_page(
    evaluation: Evaluation, recovered: pd.DataFrame, policy: GatePolicy, adapter: Adapter
) -> str:
    """Return the page as self-contained HTML; product names are escaped.

    `recovered` has product_name, purchases, suggested_department, probability and optionally
    suggested_aisle, in the order to be shown. `policy` is that of the gate, whose decision about
    the same evaluation is shown; `adapter` has the costs of its training.
    """
    test, baselines = evaluation.metrics.test, _baselines(evaluation)
    confusions = _confusions(evaluation)
    has_matrix = len(evaluation.labels) <= MAX_MATRIX_LABELS
    return render(
        "evaluation.html",
        decision=decide(evaluation, policy),
        e=evaluation,
        noun=evaluation.label,
        test=test,
        adapter=adapter,
        strategies=STRATEGIES,
        gap=evaluation.metrics.train.accuracy - test.accuracy,
        baselines=baselines,
        baselines_plot=_baselines_plot(test, baselines),
        # Highest recall first, and last what is not measured.
        departments=sorted(
            evaluation.departments.items(),
            key=lambda row: 1.0 if row[1].recall is None else -row[1].recall,
        ),
        first_labels=MAX_MATRIX_LABELS if has_matrix else FIRST_LABELS,
        has_matrix=has_matrix,
        confusions=confusions[:MAX_CONFUSIONS],
        most_confused={pair["true"]: pair for pair in reversed(confusions)},
        reliability_plot=_reliability_plot(evaluation),
        coverage_plot=_coverage_plot(evaluation),
        # Departments are in a separate table.
        slices=[
            each
            for each in evaluation.slices
            if each.slice != "department" and each.products >= MIN_SLICE
        ],
        min_slice=MIN_SLICE,
        recovered=recovered.head(MAX_RECOVERED).to_dict(orient="records"),
        recovered_count=len(recovered),
        aisles=sorted(
            evaluation.aisles.aisles if evaluation.aisles else (),
            key=lambda row: (row.support < MIN_SLICE, row.recall),
        ),
    )


def _baselines(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Baselines and champion, best first, each with the outcome of the paired test.

    If the linear model is selected, it is not compared with itself.
    """
    names = {
        "majority": f"Most frequent {evaluation.label}",
        "linear": STRATEGIES["linear"],
        "base_model": "Base model without adapter",
    }
    selected = evaluation.combination.strategy
    rows = [
        (key, names[key], each) for key, each in evaluation.baselines.items() if key != selected
    ]
    if evaluation.champion is not None:
        rows.append(("champion", "Champion (deployed)", evaluation.champion))
    rows.sort(key=lambda row: -row[2].accuracy)
    return [
        {
            "key": key,
            "name": name,
            "measured": each,
            "outcome": "not significant"
            if each.paired.p_value >= evaluation.significance
            else "better"
            if each.paired.only_model_right > each.paired.only_baseline_right
            else "worse",
        }
        for key, name, each in rows
    ]


def _baselines_plot(test: Accuracy, baselines: Sequence[dict[str, Any]]) -> Markup:
    """Accuracy with its interval, of the selected classifier and of each baseline."""
    rows = [("Selected classifier", test), *((row["name"], row["measured"]) for row in baselines)]
    figure, axes = new_plot("Test accuracy and its confidence interval", 0.8 + 0.56 * len(rows))
    for y, (name, measured) in enumerate(reversed(rows)):
        low, accuracy = 100 * measured.accuracy_low, 100 * measured.accuracy
        high = 100 * measured.accuracy_high
        is_model = measured is test
        colour = BLUE if is_model else ORANGE
        axes.plot([0, 100], [y, y], color=INK, lw=1, alpha=0.15)
        axes.plot([low, high], [y, y], color=colour, lw=8, alpha=0.45, solid_capstyle="butt")
        axes.plot(accuracy, y, "|", color=colour, ms=13, mew=2.5)
        axes.text(0, y + 0.26, name, weight="bold" if is_model else "normal")
        axes.text(100, y + 0.26, f"{accuracy:.1f} ({low:.1f} to {high:.1f})", ha="right")
    axes.set(xlim=(-1, 101), ylim=(-0.4, len(rows) - 0.3), xlabel="test accuracy, %")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return svg(figure)


def _confusions(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Pairs of true and predicted label that differ, most frequent first."""
    labels, matrix = evaluation.labels, evaluation.confusion
    pairs = [
        {"true": true, "predicted": labels[j], "products": count, "share": count / sum(counts)}
        for i, (true, counts) in enumerate(zip(labels, matrix, strict=True))
        for j, count in enumerate(counts)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: -pair["products"])


def _reliability_plot(evaluation: Evaluation) -> Markup:
    """Accuracy by confidence; the area of a dot grows with the products of its bin."""
    bins = evaluation.reliability
    most = max(b.count for b in bins)
    figure, axes = new_plot("Reliability curve")
    axes.plot([0, 100], [0, 100], color=INK, lw=1, ls=":", label="perfect calibration")
    confidence, accuracy = [100 * b.confidence for b in bins], [100 * b.accuracy for b in bins]
    axes.plot(confidence, accuracy, color=BLUE, lw=1.5)
    sizes = [25 + 175 * b.count / most for b in bins]
    axes.scatter(confidence, accuracy, s=sizes, color=BLUE, clip_on=False)
    axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 102), ylim=(0, 102))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return svg(figure)


def _coverage_plot(evaluation: Evaluation) -> Markup:
    """Accuracy of the most confident predictions by their share of all."""
    points = sorted(evaluation.coverage, key=lambda point: point.coverage)
    coverage = [100 * point.coverage for point in points]
    accuracy = [100 * point.accuracy for point in points]
    figure, axes = new_plot("Accuracy by coverage")
    axes.plot(coverage, accuracy, "o-", color=BLUE, ms=4, lw=1.8)
    axes.set(xlabel="coverage, most confident first, %", ylabel="accuracy, %")
    axes.set(xlim=(0, 102), ylim=(max(0.0, min(accuracy) - 3), 100.6))
    axes.locator_params(axis="y", integer=True)  # no tick at 100.5
    axes.grid(alpha=0.25)
    return svg(figure)
