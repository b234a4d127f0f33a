"""Departments for a whole file of names: streamed, in order, and taken up again after a kill.

Chunks of rows are scored one after the other and kept in a hidden directory beside the output.
A run that was killed finds them and goes on with the first one that is missing. A chunk's answers
depend on its rows alone, so a run that was taken up again writes what an undisturbed one writes.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from grocer.errors import OutputError, TableError
from grocer.io.atomic import file_digest, read_json, whole_file, write_json, writing
from grocer.io.tables import Source, check_format, join_parts, open_source, write_part
from grocer.model.cores import threads
from grocer.model.hierarchy import Leaf, likeliest_aisles
from grocer.model.prompt_template import clean
from grocer.progress import Ticker, say
from grocer.release.bundle import Bundle, load_bundle

DEPARTMENT, PROBABILITY = "predicted_department", "predicted_probability"
_ADDED = ((DEPARTMENT, pa.string()), (PROBABILITY, pa.float64()))
# Where the bundle's labels have aisles.
_AISLES = (("predicted_aisle", pa.string()), ("predicted_aisle_probability", pa.float64()))
Added = tuple[tuple[str, pa.DataType], ...]


class Scorer(Protocol):
    """What gives probabilities; see `grocer.scoring`."""

    @property
    def labels(self) -> Sequence[str]: ...

    # Columns for the labels; where they have aisles, columns for those behind them.
    def probabilities(self, names: Sequence[str]) -> NDArray[np.float64]: ...


def classify(
    source: Path,
    out: Path,
    bundle: Path,
    *,
    column: str = "product_name",
    min_probability: float = 0.0,
    chunk_rows: int = 4096,
    load: Callable[[Bundle], Scorer] | None = None,
) -> dict[str, int]:
    """Write `source` to `out` with the columns `predicted_department` and `predicted_probability`.

    Where the bundle's labels have aisles, also `predicted_aisle` and
    `predicted_aisle_probability`: of the aisle within that department.

    Every row is kept, in its place. All are null (empty in CSV) where the name is null or blank;
    a department or an aisle alone where its probability is below `min_probability`.

    Args:
        source, out: CSV or Parquet, by their names' extension.
        bundle: directory of the bundle.
        column: column of the product's name.
        chunk_rows: rows that are held in memory, and scored together.
        load: makes the scorer; by default the bundle's own.

    Returns:
        Counts: `rows`, `named` (with a department), `unsure` (below `min_probability`), `blank`.

    Raises:
        SourceError, TableError: the source can't be read, or lacks the column.
        BundleError, ModelError: the bundle must not be used, or can't be.
        OutputError: `out` exists, can't be written, or is being written by another run.
    """
    check_format(out)
    if out.exists():
        raise OutputError(f"{out} exists already; choose another name or remove it first")
    table = open_source(source)
    checked = load_bundle(bundle)
    added = _ADDED + _AISLES if checked.leaves else _ADDED
    _require_columns(table, source, column, added)
    rows = table.count()
    settings = {"column": column, "min_probability": min_probability, "chunk_rows": chunk_rows}
    plan = {"source": file_digest(source), "bundle": checked.digest, "format": out.suffix}
    with _workplace(out, {**plan, **settings}) as parts:
        scorer = (load or _scorer)(checked)
        ticker = Ticker("classify", rows, "names")
        done = 0
        for path, chunk in zip(_paths(parts), table.chunks(chunk_rows), strict=False):
            if not path.exists():
                with whole_file(path) as part:
                    answered = _answered(chunk, column, min_probability, scorer, checked.leaves)
                    write_part(part, answered, out.suffix)
                    write_json(path.with_suffix(".json"), _counts(answered))
            done += chunk.num_rows
            ticker.at(done)
        written = sorted(parts.glob("*.chunk"))
        with whole_file(out) as part:
            join_parts(written, _schema(table, added), part, out.suffix)
        return _sum([read_json(path.with_suffix(".json")) for path in written])


def _scorer(bundle: Bundle) -> Scorer:
    import torch

    from grocer.inference.scorer import Scorer as Model

    config = bundle.config
    torch.set_num_threads(threads(spare=1))
    return Model.load(
        bundle.path,
        token_budget=config.serving.token_budget,
        compute_dtype=config.base.compute_dtype,
    )


def _require_columns(table: Source, source: Path, column: str, added: Added) -> None:
    names = table.schema.names
    if column not in names:
        raise TableError(f"{source}: no column {column!r}; it has {', '.join(names)}")
    kind = table.schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise TableError(f"{source}: column {column!r} holds {kind}, not text")
    taken = [name for name, _ in added if name in names]
    if taken:
        raise TableError(f"{source}: has a column {taken[0]!r} already; rename it")


def _schema(table: Source, added: Added) -> pa.Schema:
    return pa.schema([*table.schema, *(pa.field(name, kind) for name, kind in added)])


def _answered(
    chunk: pa.Table, column: str, floor: float, scorer: Scorer, leaves: Sequence[Leaf]
) -> pa.Table:
    """A chunk with its answers; each distinct name is scored once."""
    names = chunk.column(column).to_pylist()
    wanted = {name: i for i, name in enumerate(dict.fromkeys(filter(_is_name, names)))}
    labels = len(scorer.labels)
    found = scorer.probabilities(list(wanted)) if wanted else np.empty((0, labels + len(leaves)))
    departments, aisles = found[:, :labels], found[:, labels:]
    levels = [([scorer.labels[i] for i in departments.argmax(axis=1)], departments, _ADDED)]
    if leaves:
        levels.append((likeliest_aisles(aisles, leaves), aisles, _AISLES))
    at = [wanted.get(name) for name in names]
    for best, probabilities, (label, probability) in levels:
        sure = probabilities.max(axis=1).round(6).tolist()
        told = [None if i is None or sure[i] < floor else best[i] or None for i in at]
        chunk = chunk.append_column(label[0], pa.array(told, label[1]))
        shares = [None if i is None else sure[i] for i in at]
        chunk = chunk.append_column(probability[0], pa.array(shares, probability[1]))
    return chunk


def _is_name(name: str | None) -> bool:
    return name is not None and bool(clean(name))


def _counts(answered: pa.Table) -> dict[str, int]:
    rows, blank = answered.num_rows, answered.column(PROBABILITY).null_count
    unnamed = answered.column(DEPARTMENT).null_count
    return {"rows": rows, "named": rows - unnamed, "unsure": unnamed - blank, "blank": blank}


def _sum(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    return {key: sum(c[key] for c in counts) for key in ("rows", "named", "unsure", "blank")}


def _paths(parts: Path) -> Iterator[Path]:
    number = 0
    while True:
        yield parts / f"{number:08d}.chunk"
        number += 1


@contextmanager
def _workplace(out: Path, plan: dict[str, Any]) -> Iterator[Path]:
    """The directory of chunks that are done; it is gone once the output is there."""
    place = out.with_name(f".{out.name}.classify")
    with _locked(out, place.with_suffix(".lock")):
        record = place / "plan.json"
        if record.exists() and read_json(record) != plan:
            say("classify", "an earlier run had another source, bundle or option: beginning anew")
            shutil.rmtree(place)
        if not record.exists():
            write_json(record, plan)
        done = len(list(place.glob("*.chunk")))
        if done:
            say("classify", f"going on after {done} chunks of an earlier run")
        yield place
        shutil.rmtree(place)


@contextmanager
def _locked(out: Path, path: Path) -> Iterator[None]:
    """Let no other run write the same output; a killed run's lock is gone with it."""
    with writing(out):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{out} is being written by another run; wait for it") from error
        yield
        path.unlink()
