"""Batch classification of a table in shards: split, classify each shard, merge in order.

    OUT-shards-<digest>/plan.json  00000.csv  00000.classified.csv  00000.json  00001.csv ...

A shard consists of whole chunks of `grocer.inference.batch`, so the scores equal those of the
unsplit table. The counts of a shard (`00000.json`) are written last: a shard that has them is
complete and is not classified again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grocer.errors import BundleError, OutputError, SourceError
from grocer.inference.batch import CHUNK_ROWS, classify, output_schema, sum_counts
from grocer.inference.classifier import Classifier, load_for_serving
from grocer.io.atomic import file_digest, json_digest
from grocer.io.storage import Storage
from grocer.io.tables import Source, check_format, join_parts, open_source, write_part
from grocer.progress import say
from grocer.release.bundle import LoadedBundle
from grocer.release.registry import open_bundle

_PLAN = "plan.json"


def shard_table(
    source: str,
    out: str,
    bundle: str,
    *,
    shards: int,
    column: str = "product_name",
    min_probability: float = 0.0,
    now: datetime | None = None,
) -> list[str]:
    """Split a table into at most `shards` files; return their addresses in table order.

    Args:
        source, out: addresses or paths of CSV or Parquet files; `{date}` and `{time}` in `out` are
            replaced by the UTC date and time of `now`.
        bundle: address or path of the bundle to classify with.
        column, min_probability: as in `grocer.inference.batch.classify`.

    Raises:
        SourceError, TableError: the source is not readable.
        BundleError: no bundle is deployed or named.
        OutputError: `out` exists, or an address cannot be reached.
    """
    if not bundle:
        raise BundleError("no bundle is deployed; deploy one, or set --bundle")
    now = now or datetime.now(UTC)
    out = out.replace("{date}", f"{now:%Y-%m-%d}").replace("{time}", f"{now:%Y-%m-%dT%H-%M-%SZ}")
    check_format(Path(out))
    if Storage(out, setting="--out").exists():
        raise OutputError(f"--out {out} already exists; remove it, or put {{date}} into its name")
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, Path(source).name)
        check_format(local)
        Storage(source, setting="--data", error=SourceError).get(local)
        table = open_source(local)
        output_schema(table, f"--data {source}", column)
        rows = table.count()
        plan = {
            "out": out,
            "source": file_digest(local),
            "rows": rows,
            "bundle": bundle,
            "column": column,
            "min_probability": min_probability,
            "shards": shards,
        }
        directory = Storage(f"{out}-shards-{json_digest(plan)[:12]}", setting="--out")
        names: list[str] = []
        for number, part in enumerate(_split(table, rows, shards, local.suffix, Path(folder))):
            names.append(f"{number:05d}{local.suffix}")
            directory.put(part, names[-1])
        directory.write_bytes(json.dumps(plan).encode(), _PLAN)
    say("shard_table", f"{rows:,} rows in {len(names)} shards at {directory.address}")
    return [f"{directory.address}/{name}" for name in names]


def classify_shard(
    shard: str, load: Callable[[LoadedBundle], Classifier] = load_for_serving
) -> dict[str, int]:
    """Classify one shard unless it is complete; return its counts as `classify` does.

    Raises:
        BundleError, ModelError: the bundle is invalid or cannot be loaded.
        OutputError: an address cannot be reached.
    """
    directory, name, record = _directory(shard), Path(shard).name, f"{Path(shard).stem}.json"
    plan = _read_json(directory, _PLAN)
    if directory.exists(record):
        say("classify_shard", f"{name} is already classified")
        known: dict[str, int] = _read_json(directory, record)
        return known
    with tempfile.TemporaryDirectory() as folder:
        local, result = Path(folder, name), Path(folder, _result_name(shard, plan["out"]))
        directory.get(local, name)
        counts = classify(
            local,
            result,
            open_bundle(plan["bundle"], Path(folder, "bundle"), step="classify_shard").path,
            column=plan["column"],
            min_probability=plan["min_probability"],
            chunk_rows=CHUNK_ROWS,
            load=load,
        )
        directory.put(result, result.name)
    directory.write_bytes(json.dumps(counts).encode(), record)
    return counts


def merge_shards(shards: Sequence[str]) -> dict[str, int]:
    """Merge the classified shards into the output, remove them, and return the sums of counts.

    Raises:
        OutputError: rows are missing, or an address cannot be reached; the shards are kept.
    """
    directory = _directory(shards[0])
    plan = _read_json(directory, _PLAN)
    counts = sum_counts(_read_json(directory, f"{Path(shard).stem}.json") for shard in shards)
    if counts["rows"] != plan["rows"]:
        raise OutputError(
            f"{directory.address}: {counts['rows']:,} of {plan['rows']:,} rows are classified; "
            "remove it and run again"
        )
    out = plan["out"]
    results = [_result_name(shard, out) for shard in shards]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        merged = folder / f"merged{Path(out).suffix}"
        with _fetched(directory, results[0], folder) as first:
            schema = open_source(first).schema
        chunks = _chunks(directory, results, folder, merged.suffix)
        join_parts(chunks, schema, merged, merged.suffix)
        Storage(out, setting="--out").put(merged)
    directory.remove()
    totals = ", ".join(f"{count:,} {kind.replace('_', '-')}" for kind, count in counts.items())
    say("merge_shards", f"{out}: {totals}")
    return counts


def _result_name(shard: str, out: str) -> str:
    """Return the file name of a classified shard, which has the format of the output."""
    return f"{Path(shard).stem}.classified{Path(out).suffix}"


def _split(table: Source, rows: int, shards: int, suffix: str, folder: Path) -> Iterator[Path]:
    """Yield the file of each shard; the next one overwrites it."""
    chunks = -(-rows // CHUNK_ROWS)
    shard_rows = max(1, -(-chunks // shards)) * CHUNK_ROWS
    part, path = folder / "part", folder / f"shard{suffix}"
    for piece in table.chunks(shard_rows) if rows else [table.schema.empty_table()]:
        write_part(part, piece, suffix)
        join_parts([part], table.schema, path, suffix)
        yield path


def _chunks(directory: Storage, names: Sequence[str], folder: Path, format: str) -> Iterator[Path]:
    """Yield files of some rows each, as `join_parts` expects them; the next one overwrites it."""
    for name in names:
        with _fetched(directory, name, folder) as local:
            for chunk in open_source(local).chunks(CHUNK_ROWS):
                write_part(folder / "part", chunk, format)
                yield folder / "part"


@contextmanager
def _fetched(directory: Storage, name: str, folder: Path) -> Iterator[Path]:
    """Yield a local copy of a file; remove it at the end of the block."""
    local = folder / name
    directory.get(local, name)
    yield local
    local.unlink()


def _directory(shard: str) -> Storage:
    return Storage(shard.rpartition("/")[0], setting="--out")


def _read_json(directory: Storage, name: str) -> Any:
    return json.loads(directory.read_bytes(name))
