"""Batch classification of a table in shards: split, classify each shard, merge in order.

    OUT-shards-<digest>/plan.json  corrections.json
                        00000.csv  00000.classified.csv  00000.json  00001.csv ...

A shard consists of whole chunks of `grocer.inference.batch`, so the scores equal those of the
unsplit table. The counts of a shard (`00000.json`) are written last: a shard that has them is
complete and is not classified again. The address has the digest of the plan, and every file is
compared with a recorded size and SHA-256 when it is read.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grocer.errors import BundleError, OutputError, SourceError
from grocer.inference.batch import CHUNK_ROWS, classify, count_table, output_schema, sum_counts
from grocer.inference.classifier import Classifier, load_for_serving
from grocer.inference.known import get_previous, reviewed_labels, usable_previous, write_state
from grocer.io.atomic import file_digest, json_digest
from grocer.io.storage import Storage
from grocer.io.tables import Source, check_format, join_parts, open_source, write_part
from grocer.progress import say
from grocer.release.bundle import LoadedBundle
from grocer.release.registry import open_bundle

_PLAN, _CORRECTIONS, _SHARDS = "plan.json", "corrections.json", "-shards-"
FileRecord = tuple[int, str]
"""Size of a file in bytes, and its SHA-256."""


def shard_table(
    source: str,
    out: str,
    bundle: str,
    *,
    shards: int,
    column: str = "product_name",
    min_probability: float = 0.0,
    previous: str = "",
    corrections: str = "",
    now: datetime | None = None,
) -> list[str]:
    """Split a table into at most `shards` files; return their addresses in table order.

    Args:
        source, out: addresses or paths of CSV or Parquet files; `{date}` and `{time}` in `out` are
            replaced by the UTC date and time of `now`.
        bundle: address or path of the bundle to classify with.
        column, min_probability: as in `grocer.inference.batch.classify`.
        previous: address of an earlier output, if any. Its predictions are kept if they are of the
            same bundle, column and limit.
        corrections: address of a corrections table, if any, whose labels replace predictions.

    Raises:
        SourceError, TableError: the source, the earlier output or the corrections are not readable.
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
        local = Path(folder, source.partition("?")[0].rpartition("/")[2])
        check_format(local)
        Storage(source, setting="--data", error=SourceError).get(local)
        table = open_source(local)
        limited = min_probability > 0
        output_schema(table, f"--data {source}", column, with_alternatives=limited)
        rows = table.count()
        reviewed = reviewed_labels(corrections) if corrections else {}
        plan = {
            **{"out": out, "source": file_digest(local), "rows": rows, "shards": shards},
            **{"bundle": bundle, "column": column, "min_probability": min_probability},
            "corrections": json_digest(reviewed),
        }
        plan["previous"] = usable_previous(previous, plan) if previous else None
        directory = Storage(_address(plan), setting="--out")
        files: dict[str, FileRecord] = {}
        for number, part in enumerate(_split(table, rows, shards, local.suffix, Path(folder))):
            name = f"{number:05d}{local.suffix}"
            directory.put(part, name)
            files[name] = _record(part)
        directory.write_bytes(json.dumps(reviewed).encode(), _CORRECTIONS)
        directory.write_bytes(json.dumps({"plan": plan, "files": files}).encode(), _PLAN)
    say("shard_table", f"{rows:,} rows in {len(files)} shards at {directory.address}")
    return [f"{directory.address}/{name}" for name in files]


def classify_shard(
    shard: str, load: Callable[[LoadedBundle], Classifier] = load_for_serving
) -> dict[str, int]:
    """Classify one shard unless it is complete; return its counts as `classify` does.

    Raises:
        BundleError, ModelError: the bundle is invalid or cannot be loaded.
        OutputError: an address cannot be reached.
    """
    directory, name, record = _directory(shard), Path(shard).name, f"{Path(shard).stem}.json"
    plan, files = _read_plan(directory)
    if directory.exists(record):
        say("classify_shard", f"{name} is already classified")
        known: dict[str, int] = _read_json(directory, record)["counts"]
        return known
    with tempfile.TemporaryDirectory() as folder:
        local = _get(directory, name, files.get(name), Path(folder))
        result = Path(folder, _result_name(shard, plan["out"]))
        reviewed = _read_json(directory, _CORRECTIONS)
        if json_digest(reviewed) != plan["corrections"]:
            raise OutputError(
                f"{directory.address} was modified: {_CORRECTIONS}; remove it and run again"
            )
        counts = classify(
            local,
            result,
            open_bundle(plan["bundle"], Path(folder, "bundle"), step="classify_shard").path,
            column=plan["column"],
            min_probability=plan["min_probability"],
            chunk_rows=CHUNK_ROWS,
            previous=get_previous(plan["previous"], Path(folder)),
            corrections=reviewed,
            load=load,
        )
        directory.put(result, result.name)
        content = {"counts": counts, "file": _record(result)}
    directory.write_bytes(json.dumps(content).encode(), record)
    return counts


def merge_shards(shards: Sequence[str]) -> dict[str, int]:
    """Merge the classified shards into the output, remove them, and return the sums of counts.

    The plan is removed first, once the output is complete: without it, an earlier attempt merged
    the shards, and the counts are those of the output.

    Raises:
        OutputError: rows are missing, or an address cannot be reached; the shards are kept.
    """
    directory = _directory(shards[0])
    out = output_of(shards[0])
    with tempfile.TemporaryDirectory() as folder:
        if directory.exists(_PLAN) or not Storage(out, setting="--out").exists():
            counts = _merge(directory, shards, Path(folder))
            directory.remove(_PLAN)
        else:
            local = Path(folder, f"output{Path(out).suffix}")
            Storage(out, setting="--out").get(local)
            counts = sum_counts(count_table(chunk) for chunk in open_source(local).chunks())
    if directory.exists():
        directory.remove()
    totals = ", ".join(f"{count:,} {kind.replace('_', '-')}" for kind, count in counts.items())
    say("merge_shards", f"{out}: {totals}")
    return counts


def output_of(shard: str) -> str:
    """Return the address of the output that a shard is a part of."""
    return shard.rpartition("/")[0].rpartition(_SHARDS)[0]


def _merge(directory: Storage, shards: Sequence[str], folder: Path) -> dict[str, int]:
    """Write the output from all classified shards, and return its counts."""
    plan, files = _read_plan(directory)
    if [Path(shard).name for shard in shards] != list(files):
        raise OutputError(
            f"{directory.address} has {len(files)} shards, but {len(shards)} were given; remove "
            "it and run again"
        )
    records = [_read_json(directory, f"{Path(shard).stem}.json") for shard in shards]
    counts = sum_counts(record["counts"] for record in records)
    if counts["rows"] != plan["rows"]:
        raise OutputError(
            f"{directory.address}: {counts['rows']:,} of {plan['rows']:,} rows are classified; "
            "remove it and run again"
        )
    out = plan["out"]
    results = {
        _result_name(shard, out): record["file"]
        for shard, record in zip(shards, records, strict=True)
    }
    merged = folder / f"merged{Path(out).suffix}"
    name, record = next(iter(results.items()))
    schema = open_source(_get(directory, name, record, folder)).schema
    join_parts(_chunks(directory, results, folder, merged.suffix), schema, merged, merged.suffix)
    Storage(out, setting="--out").put(merged)
    write_state(out, plan, file_digest(merged))
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


def _chunks(
    directory: Storage, results: Mapping[str, FileRecord], folder: Path, format: str
) -> Iterator[Path]:
    """Yield files of some rows each, as `join_parts` expects them; the next one overwrites it."""
    for name, record in results.items():
        local = _get(directory, name, record, folder)
        for chunk in open_source(local).chunks(CHUNK_ROWS):
            write_part(folder / "part", chunk, format)
            yield folder / "part"
        local.unlink()


def _get(directory: Storage, name: str, record: FileRecord | None, folder: Path) -> Path:
    """Copy a file of the directory that has this size and SHA-256; return the copy."""
    problem: str | None = f"{name} is not in {_PLAN}"
    if record is not None:
        problem = directory.get_listed({name: record[0]}, folder)
        if problem is None and _record(folder / name)[1] != record[1]:
            problem = f"{name} has another SHA-256"
    if problem is not None:
        raise OutputError(f"{directory.address} was modified: {problem}; remove it and run again")
    return folder / name


def _record(path: Path) -> FileRecord:
    return path.stat().st_size, file_digest(path)


def _address(plan: Mapping[str, Any]) -> str:
    return f"{plan['out']}{_SHARDS}{json_digest(plan)[:16]}"


def _read_plan(directory: Storage) -> tuple[dict[str, Any], dict[str, FileRecord]]:
    """Return the plan and the record of each shard."""
    try:
        content = _read_json(directory, _PLAN)
        files = {name: (size, sha256) for name, (size, sha256) in content["files"].items()}
        is_planned = _address(content["plan"]) == directory.address
    except (AttributeError, KeyError, TypeError, ValueError):
        is_planned = False
    if not is_planned:
        raise OutputError(f"{directory.address}/{_PLAN} was modified; remove it and run again")
    return content["plan"], files


def _directory(shard: str) -> Storage:
    return Storage(shard.rpartition("/")[0], setting="--out")


def _read_json(directory: Storage, name: str) -> Any:
    return json.loads(directory.read_bytes(name))
