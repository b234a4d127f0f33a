"""The split report: products of each label by side, and how far test shares deviate."""

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from grocer.artifacts.splits import Splits
from grocer.config.stages import SplitConfig
from grocer.reports.html import BLUE, INK, ORANGE, new_plot, render, svg

FIRST_LABELS = 40
"""Rows of the table of labels that are not collapsed."""


def split_page(splits: Splits, config: SplitConfig, noun: str) -> str:
    """Return the page as self-contained HTML; names are escaped.

    `config` has the configured shares; `noun` is what a label is called, in the singular.
    """
    labels = [
        {"name": name, **dict(sides), "products": sum(count for _, count in sides)}
        for name, sides in splits.departments.items()
    ]
    labels.sort(key=lambda row: -row["products"])
    return render(
        "split.html",
        splits=splits,
        noun=noun,
        labels=labels,
        first=FIRST_LABELS,
        plot=_test_share_plot(labels, config.test, noun),
        names=sum(count for _, count in splits.products),
        purchases=max(1, sum(count for _, count in splits.purchases)),
    )


def _test_share_plot(labels: Sequence[dict[str, Any]], share: float, noun: str) -> Markup:
    """The test share of each label, with a band of two standard deviations around `share`."""
    figure, axes = new_plot("Test share")
    sizes = [row["products"] for row in labels]
    low, high = min(sizes) / 1.5, max(sizes) * 1.5
    grid = [low * (high / low) ** (step / 100) for step in range(101)]
    deviations = [2 * math.sqrt(share * (1 - share) / size) for size in grid]
    axes.fill_between(
        grid,
        [100 * max(0.0, share - each) for each in deviations],
        [100 * min(1.0, share + each) for each in deviations],
        color=BLUE,
        alpha=0.2,
        lw=0,
        label="two standard deviations",
    )
    axes.axhline(100 * share, color=INK, lw=1, ls=":", label="configured share")
    shares = [100 * row["test"] / row["products"] for row in labels]
    axes.plot(sizes, shares, "o", color=ORANGE, ms=5, label=noun, clip_on=False)
    axes.set(xscale="log", xlim=(low, high), ylim=(0, max(2.5 * 100 * share, max(shares) * 1.1)))
    axes.set(xlabel="products in train, validation and test", ylabel="test share, %")
    digits = (1, 2, 5) if high < 1000 * low else (1,)
    ticks = [digit * 10**power for power in range(9) for digit in digits]
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.set_xticks([], minor=True)  # their labels would overlap
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False)
    return svg(figure)
