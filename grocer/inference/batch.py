"""Batch classification of a file of product names: streamed, in order, resumable.

Chunks of rows are scored one by one and kept in a hidden directory beside the output. After an
interruption the same command skips the finished chunks. The scores of a chunk depend on its rows
alone, so a resumed run writes the same bytes as an uninterrupted one.
"""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from grocer.errors import OutputError, TableError
from grocer.inference.classifier import Classifier, load_for_serving
from grocer.inference.known import Known, Row
from grocer.inference.scores import Scores
from grocer.io.atomic import (
    file_digest,
    json_digest,
    output_errors,
    output_file,
    read_json,
    write_json,
)
from grocer.io.tables import (
    Source,
    check_format,
    join_parts,
    missing_column,
    open_source,
    write_part,
)
from grocer.model.out_of_memory import explain_out_of_memory
from grocer.model.prompts.template import is_blank
from grocer.progress import Ticker, say
from grocer.release.bundle import LoadedBundle, load_bundle

DEPARTMENT, PROBABILITY = "predicted_department", "predicted_probability"
AISLE, AISLE_PROBABILITY = "predicted_aisle", "predicted_aisle_probability"
ALTERNATIVES = "predicted_alternatives"
RANKED = 5
"""Number of departments in `ALTERNATIVES`."""
COUNTS = ("rows", "classified", "low_confidence", "blank")
CHUNK_ROWS = 4096


@explain_out_of_memory()
def classify(
    source: Path,
    out: Path,
    bundle: Path,
    *,
    column: str = "product_name",
    min_probability: float = 0.0,
    chunk_rows: int = CHUNK_ROWS,
    previous: Path | None = None,
    corrections: Mapping[str, str] | None = None,
    load: Callable[[LoadedBundle], Classifier] = load_for_serving,
) -> dict[str, int]:
    """Write `source` to `out` with predicted department, aisle (if any) and their probabilities.

    Every row is kept, in order. All new columns are null (empty in CSV) if the name is null or
    blank. A department or aisle is null if its probability is below `min_probability`; the column
    `predicted_alternatives`, which exists if there is a limit, then ranks the departments.

    Args:
        source, out: CSV or Parquet, by file extension.
        column: column with the product name.
        previous: earlier output of the same bundle, column and limit, whose predictions are kept.
        corrections: labels of reviewers by normal form of the name, which replace predictions.
        chunk_rows: rows that are held in memory and scored together.
        load: loads the classifier of the bundle.

    Returns:
        The number of `rows`, and of those that are `classified`, `low_confidence` (below
        `min_probability`, so without a department) and `blank`.

    Raises:
        SourceError, TableError: the source is not readable or lacks the column.
        BundleError, ModelError: the bundle is invalid or cannot be loaded.
        OutputError: `out` exists, cannot be written, or is being written by another run.
    """
    check_format(out)
    if out.exists():
        raise OutputError(f"{out} already exists; choose another name or remove it first")
    table = open_source(source)
    checked = load_bundle(bundle)
    limited, two_levels = min_probability > 0, bool(checked.leaves)
    schema = output_schema(table, source, column, two_levels=two_levels, with_alternatives=limited)
    corrections = corrections or {}
    known = Known.read(previous, column, schema.names[len(table.schema) :], corrections)
    rows = table.count()
    plan = {
        **{"source": file_digest(source), "bundle": checked.digest, "format": out.suffix},
        **{"column": column, "min_probability": min_probability, "chunk_rows": chunk_rows},
        "previous": previous and file_digest(previous),
        "corrections": json_digest(dict(corrections)),
    }
    with _chunk_directory(out, plan) as directory:
        score = partial(_classify_chunk, column, min_probability, load(checked), schema, known)
        chunks = _write_chunks(directory, out.suffix, table.chunks(chunk_rows), score, rows)
        counts = sum_counts(chunks.values())
        if counts["rows"] != rows:
            raise OutputError(f"{source} changed while it was read: {rows:,} rows; run again")
        with output_file(out) as part:
            join_parts(chunks, schema, part, out.suffix, table.encoding)
        return counts


def _write_chunks(
    directory: Path,
    suffix: str,
    tables: Iterable[pa.Table],
    score: Callable[[pa.Table], pa.Table],
    rows: int,
) -> dict[Path, dict[str, int]]:
    """Write the chunks that are not complete yet; return the counts of all by path, in order."""
    ticker, chunks = Ticker("classify", rows, "names"), dict[Path, dict[str, int]]()
    for number, chunk in enumerate(tables):
        path = directory / f"{number:08d}.chunk"
        chunks[path] = _write_chunk(path, chunk, score, suffix)
        ticker.at(sum_counts(chunks.values())["rows"])
    return chunks


def _write_chunk(
    path: Path, chunk: pa.Table, score: Callable[[pa.Table], pa.Table], suffix: str
) -> dict[str, int]:
    """Write a chunk, and the record that it is complete, unless it is; return its counts."""
    record = path.with_suffix(".json")
    if path.exists() and record.exists():
        finished = read_json(record)
        counts: dict[str, int] = finished["counts"]
        if counts["rows"] == chunk.num_rows and finished["sha256"] == file_digest(path):
            return counts
    classified = score(chunk)
    with output_file(path) as part:
        write_part(part, classified, suffix)
    counts = count_table(classified)
    write_json(record, {"counts": counts, "sha256": file_digest(path)})
    return counts


def sum_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add the counts of several tables."""
    every = list(counts)
    return {key: sum(each[key] for each in every) for key in COUNTS}


def output_schema(
    table: Source,
    source: Path | str,
    column: str,
    *,
    two_levels: bool = False,
    with_alternatives: bool = False,
) -> pa.Schema:
    """Return the source's columns and the new ones; TableError if they do not fit."""
    require_text(table, source, column)
    names = table.schema.names
    added = [pa.field(DEPARTMENT, pa.string()), pa.field(PROBABILITY, pa.float64())]
    if two_levels:
        added += [pa.field(AISLE, pa.string()), pa.field(AISLE_PROBABILITY, pa.float64())]
    if with_alternatives:
        added.append(pa.field(ALTERNATIVES, pa.string()))
    for field in added:
        if field.name in names:
            raise TableError(f"{source}: column {field.name!r} already exists; rename it")
    return pa.schema([*table.schema, *added])


def require_text(table: Source, source: Path | str, column: str) -> None:
    """Raise `TableError` unless the source has the column, and its type is text."""
    names = table.schema.names
    if column not in names:
        raise missing_column(source, column, names, "set --column")
    kind = table.schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise TableError(f"{source}: column {column!r} has type {kind}, expected text")


def _classify_chunk(
    column: str,
    min_probability: float,
    classifier: Classifier,
    schema: pa.Schema,
    known: Known,
    chunk: pa.Table,
) -> pa.Table:
    """Return the chunk with the new columns of `schema`; each distinct name is scored once."""
    added = list(schema)[chunk.num_columns :]
    names = chunk.column(column).to_pylist()
    rows = {name: known.find(name, len(added)) for name in names if not is_blank(name)}
    if unknown := [name for name, row in rows.items() if row is None]:
        scored = _rows(classifier.predict(unknown), min_probability, len(added))
        rows.update(zip(unknown, scored, strict=True))
    blank = (None,) * len(added)
    values = [rows.get(name) or blank for name in names]
    for i, field in enumerate(added):
        chunk = chunk.append_column(field, pa.array([row[i] for row in values], field.type))
    return chunk


def _rows(scores: Scores, min_probability: float, columns: int) -> list[Row]:
    """Return the values of the new columns for each scored name."""
    levels = [(scores.predicted_labels, scores.confidence)]
    if scores.leaves:
        levels.append((scores.predicted_aisles, scores.aisle_confidence))
    values: list[Sequence[Any]] = []
    for labels, confidence in levels:
        rounded = confidence.round(6).tolist()
        pairs = zip(labels, rounded, strict=True)
        values += [[label or None if p >= min_probability else None for label, p in pairs], rounded]
    if columns > len(values):
        unsure = scores.confidence.round(6) < min_probability
        values.append(
            [text if each else None for text, each in zip(_ranked(scores), unsure, strict=True)]
        )
    return list(zip(*values, strict=True))


def _ranked(scores: Scores) -> list[str]:
    """Return the most probable labels of each name with their probabilities, as JSON."""
    order, probabilities = scores.top(RANKED)
    return [
        json.dumps([[scores.labels[i], p] for i, p in zip(row, ps, strict=True)])
        for row, ps in zip(order, probabilities.round(4).tolist(), strict=True)
    ]


def count_table(table: pa.Table) -> dict[str, int]:
    """Return the counts of a classified table, as `classify` does; an empty text is a null."""
    blank, empty = (
        sum(value in (None, "") for value in table.column(name).to_pylist())
        for name in (PROBABILITY, DEPARTMENT)
    )
    values = (table.num_rows, table.num_rows - empty, empty - blank, blank)
    return dict(zip(COUNTS, values, strict=True))


@contextmanager
def _chunk_directory(out: Path, plan: dict[str, Any]) -> Iterator[Path]:
    """Yield the directory of finished chunks, locked; remove it when the output is complete.

    The lock of a killed process is released.
    """
    directory = out.with_name(f".{out.name}.classify")
    lock, record = directory.with_suffix(".lock"), directory / "plan.json"
    with output_errors(out):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{out} is being written by another run; wait for it") from error
        if record.exists() and read_json(record) != plan:
            say("classify", "source, bundle or options changed since the last run: starting over")
            shutil.rmtree(directory)
        if not record.exists():
            write_json(record, plan)
        finished = len(list(directory.glob("*.chunk")))
        if finished:
            say("classify", f"resuming after {finished} chunks of an earlier run")
        yield directory
        shutil.rmtree(directory)
        lock.unlink()
