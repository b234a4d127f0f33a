"""`grocer drift`: compare the product names in a file with the catalogue of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text
from typer import Argument, Option

from pipelines.cli.options import Column, Key, require_key, silence_frameworks
from pipelines.cli.print_summary import short_name, show_block

if TYPE_CHECKING:
    from grocer.artifacts.drift import DriftReport


def drift(
    source: Annotated[Path, Argument(metavar="FILE", help="Product names; CSV or Parquet")],
    bundle: Annotated[Path, Option(metavar="DIR", help="Bundle that passed the gate")],
    column: Column = "product_name",
    page: Annotated[
        Path | None, Option(metavar="HTML", help="Write a page with the products that drive it")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print the report as JSON")] = False,
    key: Key = None,
) -> None:
    """Compare the products in a file with a bundle's test products.

    Shows the estimated accuracy, and whether confidence, words, names or departments differ
    by more than chance.
    The exit code is 0 with and without drift.
    """
    silence_frameworks()
    require_key(key)
    from grocer.inference.drift_report import report as compare
    from grocer.io.atomic import output_file
    from grocer.reports.drift import drift_page

    result = compare(source, bundle, column=column, progress=not as_json)
    if page is not None:
        with output_file(page) as part:
            part.write_text(drift_page(result, source.name), encoding="utf-8")
    if as_json:
        content = {"drift": result.drift, **result.model_dump(mode="json")}
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        show(result, page)


def show(report: DriftReport, page: Path | None) -> None:
    """Print a drift report."""
    from grocer.reports.drift import TEXTS, show_value, verdict

    console = Console(highlight=False)
    estimate = report.estimated_accuracy
    colour = "bold red" if report.drift else "bold green"
    show_block(console, "Drift", Text(verdict(report), colour))
    text = f"{report.products:,} distinct names, {report.test_products:,} test products"
    show_block(console, "Compared", text)
    text = f"estimated {estimate.accuracy:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
    text += f", measured on the test products {report.test_accuracy:.1%}"
    show_block(console, "Accuracy", text)
    lines = [
        Text(
            f"{TEXTS[name][0]:<12}{show_value(name, each.value):>8}, test products "
            f"{show_value(name, each.reference):>8}, p {each.p_value:.2g}",
            "red" if each.drift else "",
        )
        for name, each in report.signals.items()
    ]
    show_block(console, "Signals", *lines)
    if report.new_words:
        words = (f"{each.word} ({each.products:,})" for each in report.new_words[:10])
        show_block(console, "New words", ", ".join(words))
    driving = next((name for name, each in report.signals.items() if each.drift), "confidence")
    products = report.drivers[driving][:5]
    texts = (
        f"{short_name(each.product_name)}: {each.department} {each.confidence:.0%}"
        for each in products
    )
    show_block(console, "Products", *texts)
    if page is not None:
        show_block(console, "Page", str(page))
