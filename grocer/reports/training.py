"""The training report: loss curves, throughput, memory and settings."""

from grocer.artifacts.adapter import Adapter
from grocer.reports.html import BLUE, ORANGE, new_plot, render, svg


def loss_page(adapter: Adapter) -> str:
    """Return the page as self-contained HTML."""
    figure, axes = new_plot("Loss")
    for label, losses, colour, style in (
        ("training", adapter.losses, BLUE, ".-"),
        ("validation", adapter.validation_losses, ORANGE, "o--"),
    ):
        if losses:
            steps, values = [each.step for each in losses], [each.loss for each in losses]
            axes.plot(steps, values, style, color=colour, label=label)
    if adapter.validation_losses:
        axes.legend(frameon=False)
    axes.set(xlabel="optimizer step", ylabel="loss, nats per completion token")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    return render("training.html", adapter=adapter, curve=svg(figure))
