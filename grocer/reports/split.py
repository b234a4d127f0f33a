"""The page that shows how products were divided, and that no name stands on two sides."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from grocer.artifacts.splits import Splits
from grocer.config.stages import SplitConfig
from grocer.reports import html as page

FIRST_LABELS = 40
"""Of more labels, these stand open in the table, and the rest folded."""


def split_page(report: Splits, config: SplitConfig, noun: str) -> str:
    """One self-contained HTML page; names are escaped, nothing comes from the network.

    Args:
        report: what `split.json` holds.
        config: the shares that were asked for.
        noun: what a label is called, in the singular.
    """
    labels = [
        {"name": name, **dict(sides), "products": sum(count for _, count in sides)}
        for name, sides in report.departments.items()
    ]
    labels.sort(key=lambda row: -row["products"])
    return page.render(
        "split.html",
        report=report,
        noun=noun,
        labels=labels,
        first=FIRST_LABELS,
        plot=_test_shares(labels, config.test, noun),
        products=dict(report.products),
        purchases=dict(report.purchases),
        digests=dict(report.digests),
        names=sum(count for _, count in report.products),
    )


def _test_shares(labels: list[dict[str, Any]], share: float, noun: str) -> Markup:
    """The share of each label that is held out, in the funnel that chance leaves.

    Each of `labels` has its `products` and how many of them are `test`; `share` (0 to 1) was asked
    for.
    """
    figure, axes = page.new_plot("Share held out for the test")
    sizes = [row["products"] for row in labels]
    low, high = min(sizes) / 1.5, max(sizes) * 1.5
    grid = [low * (high / low) ** (step / 100) for step in range(101)]
    wide = [2 * math.sqrt(share * (1 - share) / size) for size in grid]
    axes.fill_between(
        grid,
        [100 * max(0.0, share - each) for each in wide],
        [100 * min(1.0, share + each) for each in wide],
        color=page.BLUE,
        alpha=0.2,
        lw=0,
        label="two standard deviations",
    )
    axes.axhline(100 * share, color=page.INK, lw=1, ls=":", label="asked for")
    held = [100 * row["test"] / row["products"] for row in labels]
    axes.plot(sizes, held, "o", color=page.ORANGE, ms=5, label=f"a {noun}", clip_on=False)
    axes.set(xscale="log", xlim=(low, high), ylim=(0, max(2.5 * 100 * share, max(held) * 1.1)))
    axes.set(xlabel="products, on all sides", ylabel="on the test side, %")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(frameon=False)
    return page.svg(figure)
