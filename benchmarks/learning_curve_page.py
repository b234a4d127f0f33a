"""The page of the learning curve: plots, tables, and which classifier wins at how many labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from markupsafe import Markup

from grocer.errors import GrocerError
from grocer.reports.html import BLUE, INK, ORANGE, new_plot, svg

LEVEL = 0.05
"""Significance level of each paired test."""
NAMES = {
    "ensemble": "ensemble",
    "cascade": "cascade",
    "adapter": "adapter",
    "linear": "linear model",
    "majority": "most frequent label",
}
"""Classifiers, in the order of the tables."""
_STYLES = {
    "ensemble": {"color": BLUE, "marker": "o", "lw": 2.2},
    "adapter": {"color": BLUE, "marker": "^", "ls": "--"},
    "linear": {"color": ORANGE, "marker": "s"},
    "majority": {"color": INK, "ls": ":"},
}
_MEASURES = {"accuracy": "accuracy", "log_loss": "log-loss"}
_VERDICTS = {
    "better": "significantly better",
    "worse": "significantly worse",
    "open": "no significant difference",
}


@dataclass(frozen=True)
class Size:
    """The cells of one number of labels, one for each seed, with the same settings."""

    cells: Sequence[Mapping[str, Any]]
    candidates: int
    """Different settings that were measured with this number of labels."""

    @property
    def labels(self) -> int:
        return int(self.cells[0]["labels"])

    def mean(self, classifier: str, metric: str) -> float | None:
        """Return the mean over the seeds; None if it is not defined."""
        values = [cell["classifiers"][classifier][metric] for cell in self.cells]
        return None if None in values else fmean(values)

    def difference(self, pair: str, measure: str) -> float:
        """Return the mean advantage of a pair's first classifier; positive is better."""
        model, baseline = (
            fmean(cell["tests"][pair][measure][f"{side}_{measure}"] for cell in self.cells)
            for side in ("model", "baseline")
        )
        return model - baseline if measure == "accuracy" else baseline - model

    def verdict(self, pair: str, measure: str) -> str:
        """Return `better` or `worse` if a pair's first classifier is that in the test of every
        seed, otherwise `open`."""
        found = set()
        for cell in self.cells:
            test = cell["tests"][pair][measure]
            gain = test[f"model_{measure}"] - test[f"baseline_{measure}"]
            is_better = gain > 0 if measure == "accuracy" else gain < 0
            is_open = test["p_value"] >= LEVEL or gain == 0
            found.add("open" if is_open else "better" if is_better else "worse")
        return found.pop() if len(found) == 1 else "open"


def learning_curve_page(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the page as self-contained HTML.

    Raises:
        GrocerError: no cells, or cells of different catalogues or test products.
    """
    sizes = select(cells)
    first = sizes[0].cells[0]
    environment = Environment(
        loader=ChoiceLoader(
            [FileSystemLoader(Path(__file__).parent), PackageLoader("grocer.reports")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.globals.update(blue=BLUE, orange=ORANGE)
    pairs = list(first["tests"])
    return environment.get_template("learning_curve.html").render(
        sizes=sizes,
        test=first["test"],
        statements=[statement(sizes, pair) for pair in pairs],
        best=best(sizes),
        names=NAMES,
        tables=[
            ("Accuracy, %", {name: [accuracy(size, name) for size in sizes] for name in NAMES}),
            ("Macro-F1, %", metric_rows(sizes, "macro_f1", 100, 1)),
            ("Log-loss, nats", metric_rows(sizes, "log_loss", 1, 3)),
        ],
        tests={
            f"{title(pair)}, {name}": [test_text(size, pair, measure) for size in sizes]
            for pair in pairs
            for measure, name in _MEASURES.items()
        },
        accuracy_plot=plot(sizes, "accuracy"),
        loss_plot=plot(sizes, "log_loss"),
        settings=[settings_text(size) for size in sizes],
        level=LEVEL,
    )


def accuracy_svg(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the plot of the accuracy as a file of its own, on a white background.

    Raises:
        GrocerError: no cells, or cells of different catalogues or test products.
    """
    text = str(plot(select(cells), "accuracy"))
    return text.replace("<svg", "<svg style='background: white'", 1)


def loss_ratio(cells: Sequence[Mapping[str, Any]]) -> float:
    """Return the log-loss of the linear model over that of the ensemble, the mean of the cells.

    Raises:
        GrocerError: no cells, or cells of different catalogues or test products.
    """
    selected = [cell for size in select(cells) for cell in size.cells]
    losses = [cell["tests"]["ensemble linear"]["log_loss"] for cell in selected]
    return fmean(each["baseline_log_loss"] / each["model_log_loss"] for each in losses)


def select(cells: Sequence[Mapping[str, Any]]) -> list[Size]:
    """Return the sizes in ascending order, each with one of its settings.

    Of several settings of a size, those with the most seeds are compared, and the ones with the
    lowest mean log-loss of the ensemble on the validation products are selected.
    """
    if not cells:
        raise GrocerError("there are no finished cells; measure some first (--data)")
    if len({(cell["splits"], cell["test"]) for cell in cells}) > 1:
        raise GrocerError("the cells are of different catalogues, splits or test products")
    by_size: dict[int, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        by_size[cell["labels"]][str(sorted(cell["settings"].items()))].append(cell)

    def rank(group: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
        losses = [cell["classifiers"]["ensemble"]["validation_log_loss"] for cell in group]
        return -len(group), fmean(losses)

    return [
        Size(min(groups.values(), key=rank), len(groups)) for _, groups in sorted(by_size.items())
    ]


def statement(sizes: Sequence[Size], pair: str) -> str:
    """Return from which number of labels on a pair's first classifier wins or loses."""
    parts = [f"{name} {outcome(sizes, pair, key)}" for key, name in _MEASURES.items()]
    return f"{title(pair)}: {'. '.join(part[0].upper() + part[1:] for part in parts)}."


def outcome(sizes: Sequence[Size], pair: str, measure: str) -> str:
    """Return at which sizes a pair's first classifier is better or worse."""
    parts = []
    verdicts = [(size.verdict(pair, measure), size.labels) for size in sizes]
    for verdict, group in groupby(verdicts, key=lambda each: each[0]):
        labels = [count for _, count in group]
        parts.append(f"{_VERDICTS[verdict]} {span(labels, [size.labels for size in sizes])}")
    return ", ".join(parts)


def span(labels: Sequence[int], measured: Sequence[int]) -> str:
    """Return consecutive measured numbers of labels as text."""
    first, last = labels[0], labels[-1]
    if len(labels) == len(measured):
        return f"at all sizes, {first:,} to {last:,} labels" if len(labels) > 1 else f"at {first:,}"
    if first == last:
        return f"at {first:,} labels"
    if last == measured[-1]:
        return f"from {first:,} labels on"
    if first == measured[0]:
        return f"up to {last:,} labels"
    return f"from {first:,} to {last:,} labels"


def best(sizes: Sequence[Size]) -> str:
    """Return which classifier has the highest mean accuracy at which sizes."""

    def highest(size: Size) -> str:
        return max(NAMES, key=lambda name: size.mean(name, "accuracy") or 0.0)

    parts = []
    for name, group in groupby(sizes, key=highest):
        labels = [size.labels for size in group]
        parts.append(f"{NAMES[name]} {span(labels, [size.labels for size in sizes])}")
    return "; ".join(parts)


def title(pair: str) -> str:
    """Return the name of a pair: `Ensemble against linear model`."""
    one, other = pair.split()
    return f"{NAMES[one].capitalize()} against {NAMES[other]}"


def accuracy(size: Size, classifier: str) -> str:
    """Return the mean accuracy and its interval as text; the interval is the mean of Wilson's."""
    low, mean, high = (
        100 * fmean(cell["classifiers"][classifier][key] for cell in size.cells)
        for key in ("accuracy_low", "accuracy", "accuracy_high")
    )
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def metric_rows(
    sizes: Sequence[Size], metric: str, factor: int, digits: int
) -> dict[str, list[str]]:
    """Return the mean of a metric for each classifier that has it, as text for each size."""
    rows = {}
    for name in NAMES:
        values = [size.mean(name, metric) for size in sizes]
        if None not in values:
            rows[name] = [f"{factor * (value or 0.0):.{digits}f}" for value in values]
    return rows


def test_text(size: Size, pair: str, measure: str) -> str:
    """Return a paired test as text: mean difference, and the p-value of each seed."""
    gain = size.difference(pair, measure)
    difference = f"{100 * gain:+.1f} points" if measure == "accuracy" else f"{-gain:+.3f}"
    values = [cell["tests"][pair][measure]["p_value"] for cell in size.cells]
    p = ", ".join("<0.001" if value < 0.001 else f"{value:.3f}" for value in values)
    return f"{difference} (p {p})"


def settings_text(size: Size) -> dict[str, str]:
    """Return what the page says about how the cells of a size were trained."""
    first = size.cells[0]
    settings, trained = first["settings"], [cell["adapter"] for cell in size.cells]
    shares = [cell["classifiers"]["cascade"]["language_model_share"] for cell in size.cells]
    return {
        "labels": f"{first['training']:,} + {first['validation']:,}",
        "seeds": str(len(size.cells)),
        "epochs": f"{first['adapter']['epochs']:g}",
        "rate": f"{settings['train.learning_rate']:g}",
        "loss": settings["train.loss"],
        "candidates": str(size.candidates),
        "seconds": f"{fmean(each['seconds'] for each in trained):,.0f}",
        "selected": ", ".join(sorted({NAMES[cell["selected"]] for cell in size.cells})),
        "share": f"{100 * fmean(shares):.0f} %",
    }


def plot(sizes: Sequence[Size], metric: str) -> Markup:
    """Return a metric by number of labels, with the mean of the intervals of accuracy."""
    is_accuracy = metric == "accuracy"
    factor = 100 if is_accuracy else 1
    figure, axes = new_plot("Test accuracy, %" if is_accuracy else "Test log-loss, nats")
    labels = [size.labels for size in sizes]
    for name, style in _STYLES.items():
        values = [size.mean(name, metric) for size in sizes]
        if None in values:
            continue
        axes.plot(labels, [factor * (v or 0.0) for v in values], label=NAMES[name], ms=5, **style)
        if is_accuracy and name != "majority":
            bounds = [
                [100 * (size.mean(name, f"accuracy_{side}") or 0.0) for size in sizes]
                for side in ("low", "high")
            ]
            axes.fill_between(labels, *bounds, color=style["color"], alpha=0.15, lw=0)
    axes.set_xscale("log")
    axes.set_xticks(labels, [f"{count:,}" for count in labels], rotation=30, ha="right")
    axes.minorticks_off()
    axes.set(xlabel="labels (log scale)")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="best")
    return svg(figure)
