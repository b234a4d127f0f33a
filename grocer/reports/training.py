"""The page that shows how training went: the loss over its steps, and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from grocer.artifacts.adapter import Adapter, TrainingLoss, ValidationLoss
from grocer.reports import html as page

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss_page(report: Adapter) -> str:
    """One self-contained HTML page from what `training.json` holds."""
    figure, axes = page.new_plot("Loss while training")
    _draw(axes, report.losses, color=page.BLUE, marker=".", label="training")
    if report.validation_losses:
        validation = {"color": page.ORANGE, "marker": "o", "linestyle": "--"}
        _draw(axes, report.validation_losses, **validation, label="validation")
        axes.legend(frameon=False)
    axes.set(xlabel="optimizer step", ylabel="nats per answer token")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    return page.render("loss.html", report=report, curve=page.svg(figure))


def _draw(axes: Axes, entries: Sequence[TrainingLoss | ValidationLoss], **style: Any) -> None:
    """One line of losses by step."""
    axes.plot([each.step for each in entries], [each.loss for each in entries], **style)
