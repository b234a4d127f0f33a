"""The training report: loss curves, throughput, memory and settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from grocer.artifacts.adapter import Adapter, TrainingLoss, ValidationLoss
from grocer.reports.html import BLUE, ORANGE, new_plot, render, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def loss_page(adapter: Adapter) -> str:
    """Return the page as self-contained HTML."""
    figure, axes = new_plot("Loss")
    _draw(axes, adapter.losses, color=BLUE, marker=".", label="training")
    if adapter.validation_losses:
        style = {"color": ORANGE, "marker": "o", "linestyle": "--"}
        _draw(axes, adapter.validation_losses, **style, label="validation")
        axes.legend(frameon=False)
    axes.set(xlabel="optimizer step", ylabel="loss, nats per completion token")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    return render("training.html", adapter=adapter, curve=svg(figure))


def _draw(axes: Axes, losses: Sequence[TrainingLoss | ValidationLoss], **style: Any) -> None:
    axes.plot([each.step for each in losses], [each.loss for each in losses], **style)
