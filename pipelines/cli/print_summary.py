"""What a person reads when a run has ended: the data, the figures, the verdict, what is next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pipelines.kubeflow.verdict import Verdict, told
from pipelines.local.outputs import Finished

CONTENDERS = {
    "linear": "linear model on words",
    "base_model": "untuned base model",
    "majority": "always the largest",
}
_MARGIN = 11  # columns of the headings


def show(finished: Finished, console: Console | None = None) -> None:
    """Print the summary of a run."""
    console = console or Console(highlight=False)
    for heading, block in _blocks(finished, console.width - _MARGIN):
        console.print()
        _print(console, heading, block)
    console.print()
    for heading, text in _next(finished):
        console.print(Text(f"{heading:<{_MARGIN}}", "bold") + text, soft_wrap=True)


def show_verdict(verdict: Verdict, yes: str, no: str, console: Console | None = None) -> None:
    """Print a verdict alone, as `show` does among the rest."""
    console = console or Console(highlight=False)
    console.print()
    _print(console, "Verdict", told(verdict, yes, no, console.width - _MARGIN))


def _print(console: Console, heading: str, block: Iterator[Text]) -> None:
    for line in block:
        # Soft: a path must stay on one line to be copied.
        console.print(Text(f"{heading:<{_MARGIN}}", "bold") + line, soft_wrap=True)
        heading = ""


def _blocks(finished: Finished, width: int) -> Iterator[tuple[str, Iterator[Text]]]:
    summary = finished.summary
    yield "Data", _data(summary)
    yield "Accuracy", _accuracy(summary)
    gate = Verdict(summary["gate"]["passed"], summary["gate"]["reasons"])
    yield "Verdict", told(gate, "yes: deployed", "no: nothing is served", width)
    if finished.answers is not None:
        yield "Answers", _answers(finished.answers)


def _data(summary: Mapping[str, Any]) -> Iterator[Text]:
    lines, split = summary["order_lines"], summary["split"]
    if lines["read"]:
        yield Text(
            f"{lines['read']:,} order lines read, {lines['with_nulls']:,} with nulls, "
            f"{lines['kept']:,} kept"
        )
    yield Text(f"{summary['products']:,} products in {summary['departments']:,} departments")
    yield Text(
        f"{split['train']:,} to train, {split['validation']:,} to validate, {split['test']:,} to "
        "test; no name is on two sides"
    )


def _accuracy(summary: Mapping[str, Any]) -> Iterator[Text]:
    """The model above its baselines, each with its interval, all on unseen products."""
    test = summary["metrics"]["test"]
    rows = {"this model": test}
    rows |= {name: summary["baselines"][key] for key, name in CONTENDERS.items()}
    if summary["aisles"]:
        rows["and its aisle"] = summary["aisles"]
    for name, measured in rows.items():
        yield Text.assemble(
            (f"{name:<23}{measured['accuracy']:7.1%}", "bold" if measured is test else ""),
            (
                f"   {measured['accuracy_low']:.1%} to {measured['accuracy_high']:.1%} "
                f"on {measured['products']:,} unseen products",
                "dim",
            ),
        )


def _answers(answers: Any) -> Iterator[Text]:
    """What the served model said, name by name."""
    room = max(len(answer["product_name"]) for answer in answers)
    for answer in answers:
        name, department = answer["product_name"], answer["department"]
        yield Text(f"{name:<{room}}   {department}  {answer['probability']:.0%}")


def _next(finished: Finished) -> Iterator[tuple[str, str]]:
    """Where things lie, and the command that makes sense now."""
    yield "Report", _short(finished.out / "report.html")
    bundle = finished.summary["bundle"]
    if bundle is None:
        yield "Reasons", _short(finished.out / "decision.md")
        return
    path = _short(Path(bundle["path"]))
    yield "Bundle", path
    grocer = "grocer" if shutil.which("grocer") else _short(Path(sys.argv[0]))
    yield "Next", f"{grocer} serve --bundle {path}"


def _short(path: Path) -> str:
    """The path as one would type it from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
