"""The page that shows how training went: the loss over its steps, and what it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grocer import page


def loss_page(report: Mapping[str, Any]) -> str:
    """One self-contained HTML page from what `training.json` holds."""
    figure, axes = page.new_plot(8.0, 3.6)
    steps = [entry["step"] for entry in report["losses"]]
    losses = [entry["loss"] for entry in report["losses"]]
    axes.plot(steps, losses, color="#0b7fab", marker=".", label="training")
    validated = report["validation_losses"]
    if validated:
        axes.plot(
            [entry["step"] for entry in validated],
            [entry["loss"] for entry in validated],
            color="#c2571a",
            marker="o",
            linestyle="--",
            label="validation",
        )
        axes.legend(frameon=False)
    axes.set_title("Loss")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("nats per answer token")
    axes.set_ylim(bottom=0)
    return page.render("loss.html", report=report, curve=page.svg(figure, "Loss by step"))
