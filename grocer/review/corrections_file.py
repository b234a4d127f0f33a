"""Import of the labels that reviewers gave, from a CSV file or a Label Studio export.

A CSV file has the columns `name` and `label`, and may have `who`, `when`, `source` and
`previous_label`; others are ignored, and so is a row with an empty label. Label Studio's exports as
JSON, JSON-MIN and CSV are read.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from grocer.artifacts.evaluation import Evaluation
from grocer.errors import TableError
from grocer.ingest.corrections import (
    RESOLUTION,
    Correction,
    Corrections,
    append,
    latest_rows,
    open_table,
    read_table,
)
from grocer.io.tables import missing_column, open_source, without_formula_guard
from grocer.model.prompts.product_names import name_key
from grocer.release.bundle import load_bundle
from grocer.release.manifest import MANIFEST

_SOURCE = "review"


@dataclass(frozen=True)
class Imported:
    """Result of an import."""

    added: int
    known: int
    """Rows that the table already had."""
    skipped: int
    """Rows without a label."""
    conflicts: Mapping[str, tuple[Correction, ...]]
    """The last correction of each reviewer, of imported names on which they disagree."""


def import_file(
    path: Path,
    address: str,
    labels: Sequence[str],
    *,
    reviewer: str = "",
    resolve: bool = False,
    now: datetime | None = None,
) -> Imported:
    """Add the corrections in a file to the table at `address`, or none if one is invalid.

    Args:
        labels: the valid labels.
        reviewer: who gave the labels, where the file does not say it.
        resolve: whether the file decides between reviewers: its rows override all earlier ones.

    Raises:
        SourceError, TableError: the file or the table is not readable, or a row is invalid.
        OutputError: the table cannot be written.
    """
    table = open_table(address)
    existing = read_table(table) if table.exists() else []
    before = Corrections.of(existing)
    latest = latest_rows(existing)
    # A file without times is imported again without overriding a resolution since then.
    unresolved = latest_rows(row for row in existing if row.source != RESOLUTION)
    moment = f"{now or datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    rows: dict[tuple[str, str, str], Correction] = {}
    given_labels: dict[tuple[str, str, str], str] = {}  # of all rows, also known ones
    known = skipped = 0
    for where, values in _rows(path):
        if not values.get("label"):
            skipped += 1
            continue
        given = {"who": reviewer, "when": moment, **values, **({"source": ""} if resolve else {})}
        row = _correction(where, given, labels)
        key = name_key(row.name)
        if resolve:
            row = row.model_copy(update={"source": RESOLUTION})
        if not row.previous_label and key in before.effective:
            row = row.model_copy(update={"previous_label": before.effective[key].label})
        if (earlier := given_labels.setdefault((key, row.who, row.when), row.label)) != row.label:
            raise TableError(
                f"{where}: {row.who} gave {row.name!r} both {earlier!r} and {row.label!r}; keep "
                "one of them"
            )
        history = latest if resolve or "when" in values else unresolved
        last = history.get(key, {}).get(row.who)
        if last is not None and last.label == row.label and last.source == row.source:
            known += 1
            continue
        rows[key, row.who, row.when] = row
    if rows:
        append(table, list(rows.values()), now)
    after = Corrections.of([*existing, *rows.values()])
    names = {key for key, _, _ in rows}
    conflicts = {key: each for key, each in after.conflicts.items() if key in names}
    return Imported(len(rows), known, skipped, conflicts)


def known_labels(run: Path) -> tuple[str, ...]:
    """Return the labels of a run's output directory, or of a bundle.

    Raises:
        ArtifactError, BundleError: the directory is neither.
    """
    if (run / MANIFEST).is_file():
        return load_bundle(run).labels
    return Evaluation.of_run(run).labels


def _correction(where: str, values: Mapping[str, str], labels: Sequence[str]) -> Correction:
    """Return the correction of one row; raise a TableError if a value is invalid."""
    name = values.get("name", "").strip()
    label, who = (" ".join(values[key].split()) for key in ("label", "who"))
    if not name:
        raise TableError(f"{where}: no name")
    if label not in labels:
        same = [each for each in labels if each.casefold() == label.casefold()]
        near = same or get_close_matches(label, labels, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise TableError(f"{where}: {label!r} is not a label; {hint}labels are {'; '.join(labels)}")
    if not who:
        raise TableError(f"{where}: no reviewer; fill the column `who`, or set --reviewer")
    source = values.get("source") or _SOURCE
    if source.strip().lower() == RESOLUTION:
        raise TableError(f"{where}: source {source!r} is reserved; import the file with --resolve")
    try:
        when = datetime.fromisoformat(values["when"])
    except ValueError as error:
        raise TableError(
            f"{where}: {values['when']!r} is not a time such as 2026-11-30T06:42:00Z"
        ) from error
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return Correction(
        name=name,
        label=label,
        who=who,
        when=f"{when:%Y-%m-%dT%H:%M:%SZ}",
        source=source,
        previous_label=values.get("previous_label", ""),
    )


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place of each row in the file, and its values that are not empty."""
    if path.suffix == ".json":
        yield from _label_studio_rows(path)
        return
    if path.suffix == ".html":
        raise TableError(f"{path}: open the page in a browser, and import the CSV file it saves")
    table = open_source(path)
    for column in ("name", "label"):
        if column not in table.schema.names:
            raise missing_column(path, column, table.schema.names)
    number = 1  # the header, so that a spreadsheet shows the same number
    for chunk in table.chunks():
        for values in chunk.to_pylist():
            number += 1
            cells = {key: str(v) for key, v in values.items() if v}
            texts = {key: without_formula_guard(v) for key, v in cells.items() if v.strip()}
            yield f"{path}, row {number}", _flat_annotation(texts)


def _label_studio_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield a row for each annotation of a JSON export; a skipped one has no label."""
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
        for task in tasks:
            where = f"{path}, task {task.get('id')}"
            if "annotator" in task:
                yield where, _flat_annotation({key: str(v) for key, v in task.items() if v})
                continue
            for annotation in task["annotations"]:
                yield where, _annotation(task["data"], annotation)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise TableError(
            f"{path}: not a Label Studio export: {type(error).__name__} {error}; export the "
            "project as JSON or JSON-MIN"
        ) from error
    except OSError as error:
        raise TableError(f"{path}: cannot read: {error.strerror}") from error


def _annotation(data: Mapping[str, Any], annotation: Mapping[str, Any]) -> dict[str, str]:
    chosen = [
        choice
        for result in annotation["result"]
        if result["type"] == "choices"
        for choice in result["value"]["choices"]
    ]
    who = annotation["completed_by"]
    who = who["email"] if isinstance(who, dict) else who
    values = {
        "name": str(data["name"]),
        "label": "" if annotation.get("was_cancelled") or not chosen else str(chosen[0]),
        "who": _reviewer(str(who)),
        "when": str(annotation["updated_at"]),
        "source": str(data.get("source") or ""),
        "previous_label": str(data.get("previous_label") or ""),
    }
    return {key: value for key, value in values.items() if value}


def _flat_annotation(texts: dict[str, str]) -> dict[str, str]:
    """Return a row with the reviewer and the time of Label Studio's columns, if it has them."""
    if not {"annotator", "updated_at"} <= texts.keys():
        return texts
    return {"who": _reviewer(texts["annotator"]), "when": texts["updated_at"]} | texts


def _reviewer(annotator: str) -> str:
    """Return the name of an annotator, who is an e-mail address or a number."""
    return annotator if "@" in annotator else f"annotator {annotator}"
