"""What a person reads when a run has ended: the data, the figures, the verdict, what is next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.text import Text

from pipelines.collect import Finished

CONTENDERS = {
    "linear": "linear model on words",
    "base_model": "untuned base model",
    "majority": "always the largest",
}
_MARGIN = 11  # columns of the headings


def show(finished: Finished, console: Console | None = None) -> None:
    """Print the summary of a run."""
    console = console or Console(highlight=False)
    for heading, lines in _blocks(finished, console.width - _MARGIN):
        console.print()
        for line in lines:
            # Soft: a path must stay on one line to be copied.
            console.print(Text(f"{heading:<{_MARGIN}}", "bold") + line, soft_wrap=True)
            heading = ""
    console.print()
    for heading, text in _next(finished):
        console.print(Text(f"{heading:<{_MARGIN}}", "bold") + text, soft_wrap=True)


def _blocks(finished: Finished, width: int) -> Iterator[tuple[str, Iterator[Text]]]:
    summary = finished.summary
    yield "Data", _data(summary)
    yield "Accuracy", _accuracy(summary)
    yield "Verdict", _verdict(summary["gate"], width)
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
    for name, measured in rows.items():
        yield Text.assemble(
            (f"{name:<23}{measured['accuracy']:7.1%}", "bold" if measured is test else ""),
            (
                f"   {measured['accuracy_low']:.1%} to {measured['accuracy_high']:.1%} "
                f"on {measured['products']:,} unseen products",
                "dim",
            ),
        )


def _verdict(gate: Mapping[str, Any], width: int) -> Iterator[Text]:
    """Yes or no, and every rule's sentence: those that failed first."""
    if gate["passed"]:
        yield Text("yes: deployed", "bold green")
    else:
        yield Text("no: nothing is served", "bold red")
    for reason in sorted(gate["reasons"], key=lambda reason: bool(reason["passed"])):
        mark = Text("✓ ", "green") if reason["passed"] else Text("✗ ", "red")
        for part in wrap(reason["sentence"], max(width - 2, 40)):
            yield mark + part
            mark = Text("  ")


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
