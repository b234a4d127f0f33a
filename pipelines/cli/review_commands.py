"""`grocer review import`: take the corrections of reviewers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

review = typer.Typer(
    name="review", help="Review labels, and collect corrections.", rich_markup_mode=None
)


@review.command(name="import")
def import_corrections(
    file: Annotated[
        Path,
        Argument(metavar="FILE", help="Reviewed CSV file, or JSON export of Label Studio"),
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
