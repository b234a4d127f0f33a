"""The drift page: whether the products in a file differ from the catalogue, and which ones."""

from markupsafe import Markup

from grocer.artifacts.drift import DriftReport, Signal
from grocer.reports.html import BLUE, INK, ORANGE, new_plot, render, svg

MAX_DEPARTMENTS = 15
"""Rows of the plot."""
TEXTS: dict[Signal, tuple[str, str]] = {
    "confidence": ("Confidence", "Mean probability of the predicted {label}; lower is drift"),
    "new_words": (
        "New words",
        "Share of words unknown to the training vocabulary; higher is drift",
    ),
    "names": ("Names", "Share of character n-grams unknown to the vocabulary; higher is drift"),
    "departments": ("Departments", "Distance of the predicted {label}s; 0: none"),
}
"""Name and description of each signal."""
DRIVERS: dict[Signal, str] = {
    "confidence": "Least confident predictions",
    "new_words": "Products with the largest share of new words",
    "names": "Products with the largest share of new character n-grams",
    "departments": "Products of the departments that are too frequent",
}


def verdict(report: DriftReport) -> str:
    """Return the result in one sentence."""
    found = [TEXTS[name][0].lower() for name, each in report.signals.items() if each.drift]
    if found:
        return f"Drift detected: {', '.join(found)}"
    return "No drift detected"


def show_value(name: Signal, value: float) -> str:
    """Return a value of a signal as text."""
    return f"{value:.3f}" if name == "departments" else f"{100 * value:.1f} %"


def drift_page(report: DriftReport, source: str) -> str:
    """Return the page as self-contained HTML; product names are escaped.

    `source` is the name of the file.
    """
    return render(
        "drift.html",
        report=report,
        source=source,
        verdict=verdict(report),
        texts=TEXTS,
        titles=DRIVERS,
        show_value=show_value,
        plot=_departments_plot(report),
    )


def _departments_plot(report: DriftReport) -> Markup:
    """Share of each label in the file and in the reference, largest difference first."""
    rows = report.departments[:MAX_DEPARTMENTS][::-1]
    figure, axes = new_plot(f"Predicted {report.label}s", 0.9 + 0.34 * len(rows))
    places = range(len(rows))
    for each, offset, colour, label in (
        ("share", 0.2, BLUE, "this file"),
        ("reference", -0.2, ORANGE, "catalogue"),
    ):
        shares = [100 * getattr(row, each) for row in rows]
        axes.barh([place + offset for place in places], shares, 0.38, color=colour, label=label)
    # A longer label leaves no room for the bars. `$` would start a formula.
    names = [row.department for row in rows]
    names = [name if len(name) <= 28 else f"{name[:27]}…" for name in names]
    axes.set_yticks(list(places), names, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="share of products, %")
    axes.grid(axis="x", alpha=0.25, color=INK)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    return svg(figure)
