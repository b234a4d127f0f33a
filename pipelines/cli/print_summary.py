"""Prints the summary of a run: data, accuracy, gate, predictions, and the next command."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any
from unicodedata import category

from rich.console import Console
from rich.text import Text

from grocer.artifacts.metrics import Accuracy
from grocer.artifacts.run_summary import RunSummary
from grocer.events import Reason
from pipelines.local.outputs import Finished

BASELINES = {
    "linear": "linear baseline",
    "base_model": "untuned base model",
    "majority": "majority baseline",
}
_MARGIN = 13  # columns of the headings


def show(finished: Finished, console: Console | None = None) -> None:
    """Print the summary of a run."""
    console = console or Console(highlight=False)
    summary, gate = finished.summary, finished.summary.gate
    outcome = "bundle written and tested" if gate.passed else "nothing deployed"
    blocks = {
        "Data": _data(summary),
        "Accuracy": _accuracy(summary),
        "Classifiers": _classifiers(summary),
        "Gate": _verdict(gate.passed, gate.reasons, outcome, console.width - _MARGIN),
    }
    if finished.predictions is not None:
        blocks["Predictions"] = _predictions(finished.predictions)
    for heading, block in blocks.items():
        console.print()
        show_block(console, heading, *block)
    console.print()
    for heading, text in _next(finished):
        show_block(console, heading, text)


def show_verdict(
    passed: bool, reasons: Sequence[Reason], outcome: str, heading: str = "Gate"
) -> None:
    """Print the verdict of the gate or the canary, its outcome for the model, and the reasons."""
    console = Console(highlight=False)
    console.print()
    show_block(console, heading, *_verdict(passed, reasons, outcome, console.width - _MARGIN))


def show_block(console: Console, heading: str, *lines: str | Text) -> None:
    """Print the lines of a block, the first one after its heading."""
    for line in lines:
        # Soft wrap: a path must stay on one line to be copied.
        text = Text.assemble((f"{heading:<{_MARGIN}}", "bold"), line)
        # A name from a file could otherwise break the line, or control the terminal.
        text.plain = "".join(" " if category(c) == "Cc" else c for c in text.plain)
        console.print(text, soft_wrap=True)
        heading = ""


def _data(summary: RunSummary) -> Iterator[Text]:
    lines, split = summary.order_lines, summary.split
    if lines["read"]:
        yield Text(
            f"{lines['read']:,} order lines: {lines['kept']:,} kept, {lines['with_nulls']:,} with "
            "missing values"
        )
    yield Text(f"{summary.products:,} products in {summary.departments:,} departments")
    yield Text(
        f"Split by name: {split.train:,} train, {split.validation:,} validation, "
        f"{split.test:,} test"
    )


def _accuracy(summary: RunSummary) -> Iterator[Text]:
    """Yield the test accuracy of the model and its baselines, with confidence intervals."""
    test = summary.metrics.test
    rows: dict[str, Accuracy] = {"test accuracy": test}
    rows |= {name: summary.baselines[key] for key, name in BASELINES.items()}
    if summary.aisles:
        rows["aisle accuracy"] = summary.aisles
    for name, metrics in rows.items():
        yield Text.assemble(
            (f"{name:<19}{metrics.accuracy:6.1%}", "bold" if metrics is test else ""),
            (
                f"   95 % CI {metrics.accuracy_low:.1%}–{metrics.accuracy_high:.1%}, "
                f"n = {metrics.products:,}",
                "dim",
            ),
        )


def _classifiers(summary: RunSummary) -> Iterator[Text]:
    """Yield a table of the classifiers on the test products; the selected one is bold."""
    yield Text("            accuracy  log-loss    ECE   names/s", "dim")
    for name, each in summary.classifiers.items():
        selected = name == summary.strategy
        yield Text(
            f"{name:<12}{each.accuracy:8.1%}{each.log_loss:10.3f}{max(each.ece_debiased, 0.0):7.3f}"
            f"{each.names_per_second:10,.0f}{'   selected' if selected else ''}",
            "bold" if selected else "",
        )


def _verdict(passed: bool, reasons: Sequence[Reason], outcome: str, width: int) -> Iterator[Text]:
    """Yield the verdict, then the sentence of each rule, failed rules first."""
    text = f"{'passed' if passed else 'failed'}: {outcome}"
    yield Text(text, "bold green" if passed else "bold red")
    for reason in sorted(reasons, key=lambda reason: reason.passed):
        mark = Text("✓ ", "green") if reason.passed else Text("✗ ", "red")
        for part in wrap(reason.sentence, max(width - 2, 40)):
            yield mark + part
            mark = Text("  ")


def _predictions(predictions: Any) -> Iterator[Text]:
    names = [short_name(each["product_name"]) for each in predictions]
    width = max(map(len, names))
    for name, each in zip(names, predictions, strict=True):
        yield Text(f"{name:<{width}}   {each['department']}  {each['probability']:.0%}")


def short_name(name: str) -> str:
    """Return at most the first 60 characters of a product name."""
    return name if len(name) <= 60 else f"{name[:59]}…"


def _next(finished: Finished) -> Iterator[tuple[str, str]]:
    """Yield the paths of the results, and the next command."""
    yield "Report", _short(finished.out / "report.html")
    bundle = finished.summary.bundle
    if bundle is None:
        yield "Decision", _short(finished.out / "decision.md")
        return
    path = _short(Path(bundle["path"]))
    yield "Bundle", path
    grocer = "grocer" if shutil.which("grocer") else _short(Path(sys.argv[0]))
    yield "Next", f"{grocer} serve --bundle {path}"


def _short(path: Path) -> str:
    """Return the path relative to the working directory if it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
