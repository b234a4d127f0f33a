"""`grocer review export` and `import`: what to review, and the corrections of reviewers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from typer import Argument, Option

review = typer.Typer(
    name="review", help="Review labels, and collect corrections.", rich_markup_mode=None
)


class Format(StrEnum):
    """Format of the review queue."""

    csv = "csv"
    label_studio = "label-studio"
    html = "html"


_BY_SUFFIX = {".csv": Format.csv, ".html": Format.html, ".json": Format.label_studio}


@review.command()
def export(
    out: Annotated[Path, Argument(metavar="OUT", help="Output file")],
    run: Annotated[
        Path, Option(metavar="DIR", help="Output directory of a run: its products and models")
    ],
    form: Annotated[
        Format | None,
        Option(
            "--format",
            metavar="NAME",
            help="Format: html (offline page), label-studio (tasks with predictions) or csv; "
            "default: html for OUT.html, label-studio for OUT.json, csv for OUT.csv",
        ),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        Option(
            metavar="FILE",
            help="Add the uncertain rows of an output of grocer classify or bulk; repeatable",
        ),
    ] = None,
    column: Annotated[
        str, Option(metavar="NAME", help="Column of --predictions with the product names")
    ] = "product_name",
    corrections: Annotated[
        str | None,
        Option(metavar="URI", help="Corrections table; products that it labels are left out"),
    ] = None,
    limit: Annotated[
        int, Option(metavar="N", min=1, help="Maximum number of products, the most valuable first")
    ] = 500,
    by_probability: Annotated[
        bool,
        Option(
            "--by-probability",
            help="Order by the probability of an error alone: more wrong labels, of less popular "
            "products",
        ),
    ] = False,
) -> None:
    """Write the products whose label is worth reviewing.

    These are products whose label is probably wrong, products without a label, and uncertain
    predictions, ordered by the probability of an error times the number of purchases. A file that
    exists is not overwritten, as it may have been reviewed.
    """
    from grocer.errors import TableError
    from grocer.ingest.corrections import Corrections, open_table, read_table
    from grocer.review.formats import FORMATS
    from grocer.review.queue import build_queue, classified, run_candidates

    form = _output_format(out, form)
    reviewed = Corrections.of(read_table(open_table(corrections)) if corrections else ())
    candidates, labels = run_candidates(run)
    typical = int(median(each.purchases for each in candidates))
    uncertain = [each for path in predictions or () for each in classified(path, column, typical)]
    predicted = {label for each in uncertain for label, _ in each.alternatives}
    if other := predicted.difference(labels):  # the import would reject it after the review
        raise TableError(
            f"--predictions: {min(other)!r} is not a label of {run}; use the run of the bundle "
            "that classified the file"
        )
    uncertain += candidates
    queue = build_queue(uncertain, reviewed.effective, limit, by_probability=by_probability)
    FORMATS[form](queue, labels, out)
    typer.echo(f"{out}: {len(queue):,} products to review")


def _output_format(out: Path, form: Format | None) -> Format:
    from grocer.errors import ConfigError, OutputError

    if out.exists():
        raise OutputError(f"{out} already exists; choose another file or remove it first")
    form = form or _BY_SUFFIX.get(out.suffix)
    if form is None:
        raise ConfigError(f"{out}: expected a name that ends in .csv, .html or .json, or --format")
    return form


@review.command(name="import")
def import_corrections(
    file: Annotated[
        Path,
        Argument(metavar="FILE", help="Reviewed CSV file, or export of Label Studio"),
    ],
    corrections: Annotated[
        str, Option(metavar="URI", help="Corrections table: a directory, or an s3:// or gs:// URI")
    ],
    run: Annotated[
        Path,
        Option(metavar="DIR", help="Output directory of a run, or a bundle; has the valid labels"),
    ],
    reviewer: Annotated[
        str, Option(metavar="NAME", help="Reviewer, where FILE has no column `who`")
    ] = "",
    resolve: Annotated[
        bool, Option("--resolve", help="Override all earlier corrections, also in a conflict")
    ] = False,
) -> None:
    """Add the labels in a reviewed file to the corrections table.

    All rows are added, or none if one is invalid. If reviewers disagree on a product, its label
    stays as it is until a file with the right label is imported with --resolve.
    """
    from grocer.review.corrections_file import import_file, known_labels

    result = import_file(file, corrections, known_labels(run), reviewer=reviewer, resolve=resolve)
    typer.echo(
        f"{corrections}: {result.added:,} added, {result.known:,} already known, "
        f"{result.skipped:,} without label, {len(result.conflicts):,} conflicts"
    )
    for rows in result.conflicts.values():
        given = ", ".join(f"{row.who}: {row.label}" for row in rows)
        typer.echo(f"conflict, not applied: {rows[0].name} ({given})")
