"""What a person reads when a run has ended: the data, the figures, the verdict, what is next."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.collect import Finished

CONTENDERS = {
    "linear": "linear model on words",
    "base_model": "untuned base model",
    "majority": "always the largest",
}


def show(finished: Finished, console: Console | None = None) -> None:
    """Print the summary of a run."""
    console = console or Console(highlight=False)
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    for heading, block in _blocks(finished):
        grid.add_row(heading, block)
    console.print()
    console.print(grid)
    for heading, command in _next(finished):
        # Not in the table: a path must stay on one line to be copied.
        console.print(Text.assemble((f"{heading:<10}", "bold"), command), soft_wrap=True)


def _blocks(finished: Finished) -> Iterator[tuple[str, Table | Text]]:
    summary = finished.summary
    yield "Data", Text("\n".join(_data(summary)))
    yield "", Text("")
    yield "Accuracy", _accuracy(summary)
    yield "", Text("")
    yield "Verdict", _verdict(summary["gate"])
    if finished.answers is not None:
        yield "", Text("")
        yield "Answers", _answers(finished.answers)
    yield "", Text("")


def _data(summary: Mapping[str, Any]) -> Iterator[str]:
    lines, split = summary["order_lines"], summary["split"]
    yield (
        f"{lines['read']:,} order lines read, {lines['with_nulls']:,} with nulls, "
        f"{lines['kept']:,} kept"
    )
    yield f"{summary['products']:,} products in {summary['departments']:,} departments"
    yield (
        f"{split['train']:,} to train, {split['validation']:,} to validate, {split['test']:,} to "
        "test; no name is on two sides"
    )


def _accuracy(summary: Mapping[str, Any]) -> Table:
    """The model above its baselines, each with its interval, all on unseen products."""
    test = summary["metrics"]["test"]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    rows = [("this model", test)]
    rows += [(name, summary["baselines"][key]) for key, name in CONTENDERS.items()]
    for name, measured in rows:
        table.add_row(
            Text(name, style="bold" if measured is test else ""),
            f"{100 * measured['accuracy']:.1f} %",
            f"{100 * measured['accuracy_low']:.1f} to {100 * measured['accuracy_high']:.1f} %, "
            f"on {measured['products']:,} products",
        )
    return table


def _verdict(gate: Mapping[str, Any]) -> Text:
    """Yes or no, and every rule's sentence: those that failed first."""
    text = Text("yes: deployed", "bold green")
    if not gate["passed"]:
        text = Text("no: nothing is served", "bold red")
    for reason in sorted(gate["reasons"], key=lambda reason: bool(reason["passed"])):
        mark, style = ("✓", "green") if reason["passed"] else ("✗", "red")
        text.append(f"\n{mark} ", style).append(reason["sentence"])
    return text


def _answers(answers: Any) -> Table:
    """What the served model said, name by name."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for answer in answers:
        share = f"{100 * answer['probability']:.0f} %"
        table.add_row(answer["product_name"], answer["department"], share)
    return table


def _next(finished: Finished) -> Iterator[tuple[str, str]]:
    """Where things lie, and the commands that make sense now."""
    yield "Report", _short(finished.out / "report.html")
    bundle = finished.summary["bundle"]
    if bundle is None:
        yield "Reasons", _short(finished.out / "decision.md")
        return
    path = _short(Path(bundle["path"]))
    yield "Bundle", path
    yield "Next", f"grocer serve --bundle {path}"


def _short(path: Path) -> str:
    """The path as one would type it from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
