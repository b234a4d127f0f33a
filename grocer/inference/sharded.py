"""A table answered in shards: cut into files beside the output, classified apart, joined in order.

    OUT-shards-<digest>/plan.json  00000.csv  00000.answers.csv  00000.json  00001.csv ...

Shards are of whole chunks of `grocer.classify`, so the answers are those of the table in one
piece. A shard's counts are written last: one that has them is answered, and is not done again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grocer.errors import BundleError, OutputError, SourceError, TableError
from grocer.inference.batch import Scorer, classify
from grocer.io.atomic import file_digest, json_digest, read_json, write_json
from grocer.io.storage import Storage, is_remote
from grocer.io.tables import Source, check_format, join_parts, open_source, write_part
from grocer.progress import say
from grocer.release import registry as store
from grocer.release.bundle import Bundle

CHUNK_ROWS = 4096
_PLAN = "plan.json"


def cut(
    source: str,
    out: str,
    bundle: str,
    *,
    shards: int,
    column: str = "product_name",
    min_probability: float = 0.0,
    now: datetime | None = None,
) -> list[str]:
    """Cut a table into at most `shards` files, each but the last of as many rows.

    Args:
        source, out: addresses, or paths, of CSV or Parquet; `{date}` and `{time}` in `out` become
            the day and the time (UTC) of `now`.
        bundle: address, or path, of the bundle that is to answer.
        column, min_probability: as of `grocer.classify.classify`.

    Returns:
        The addresses of the shards, in the table's order; one without rows for an empty table.

    Raises:
        SourceError, TableError: the source can't be read.
        BundleError: there is no bundle.
        OutputError: `out` exists, or a place can't be reached.
    """
    if not bundle:
        raise BundleError("no bundle serves yet; deploy one, or name one by --bundle")
    out = _named(out, now or datetime.now(UTC))
    check_format(Path(out))
    if _storage(out).exists():
        raise OutputError(f"--out {out} exists already; remove it, or put {{date}} into its name")
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, source.rpartition("/")[2])
        check_format(local)
        Storage(source, setting="--data", error=SourceError).get(local)
        table = open_source(local)
        if column not in (names := table.schema.names):
            raise TableError(f"--data {source}: no column {column!r}; it has {', '.join(names)}")
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
        place = f"{out}-shards-{json_digest(plan)[:12]}"
        made = []
        for name, part in _parts(table, rows, shards, local, Path(folder)):
            made.append(f"{place}/{name}")
            _storage(made[-1]).put(part)
        _put_json(plan, f"{place}/{_PLAN}", Path(folder))
    say("shard_table", f"{rows:,} rows in {len(made)} shards at {place}")
    return made


def answer(shard: str, load: Callable[[Bundle], Scorer] | None = None) -> dict[str, int]:
    """Classify one shard, unless it is answered already; its counts, as of `classify`.

    Raises:
        BundleError, ModelError: the bundle must not be used, or can't be.
        OutputError: a place can't be reached.
    """
    place, _, name = shard.rpartition("/")
    done = f"{place}/{Path(name).stem}.json"
    with tempfile.TemporaryDirectory() as folder:
        plan = _get_json(f"{place}/{_PLAN}", Path(folder))
        if _storage(done).exists():
            counts = _get_json(done, Path(folder))
            say("classify_shard", f"{name} is answered already")
            return {key: int(count) for key, count in counts.items()}
        local, answers = Path(folder, name), Path(folder, _answers(shard, plan["out"]))
        _storage(shard).get(local)
        counts = classify(
            local,
            answers,
            _bundle(plan["bundle"], Path(folder)),
            column=plan["column"],
            min_probability=plan["min_probability"],
            chunk_rows=CHUNK_ROWS,
            load=load,
        )
        _storage(f"{place}/{answers.name}").put(answers)
        _put_json(counts, done, Path(folder))
    return counts


def join(shards: Sequence[str]) -> dict[str, int]:
    """Put the answered shards behind one another where `cut` was told, and remove them.

    Returns:
        The counts of all.

    Raises:
        OutputError: rows are missing, or a place can't be reached; the shards are kept.
    """
    place = shards[0].rpartition("/")[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = _get_json(f"{place}/{_PLAN}", folder)
        counted = [_get_json(f"{shard.rpartition('.')[0]}.json", folder) for shard in shards]
        counts = {key: sum(each[key] for each in counted) for key in counted[0]}
        if counts["rows"] != plan["rows"]:
            raise OutputError(
                f"{place}: {counts['rows']:,} rows are answered of {plan['rows']:,}; remove it, "
                "and run again"
            )
        out = plan["out"]
        answered = [f"{place}/{_answers(shard, out)}" for shard in shards]
        joined = folder / f"joined{Path(out).suffix}"
        with _fetched(answered[0], folder) as first:
            schema = open_source(first).schema
        join_parts(_chunks(answered, folder, joined.suffix), schema, joined, joined.suffix)
        _storage(out).put(joined)
    _storage(place).remove()
    told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    say("merge_shards", f"{out}: {told}")
    return counts


def _named(out: str, now: datetime) -> str:
    return out.replace("{date}", f"{now:%Y-%m-%d}").replace("{time}", f"{now:%Y-%m-%dT%H-%M-%SZ}")


def _answers(shard: str, out: str) -> str:
    """File name of a shard's answers, which are of the output's format."""
    return f"{Path(shard.rpartition('/')[2]).stem}.answers{Path(out).suffix}"


def _parts(
    table: Source, rows: int, shards: int, local: Path, folder: Path
) -> Iterator[tuple[str, Path]]:
    """Each shard's name and file; the file is gone when the next one is asked for."""
    chunks = -(-rows // CHUNK_ROWS)
    each = max(1, -(-chunks // shards)) * CHUNK_ROWS
    tables = table.chunks(each) if rows else iter([table.schema.empty_table()])
    for number, piece in enumerate(tables):
        part, whole = folder / "part", folder / f"shard{local.suffix}"
        write_part(part, piece, local.suffix)
        join_parts([part], table.schema, whole, local.suffix)
        yield f"{number:05d}{local.suffix}", whole


def _chunks(answered: Sequence[str], folder: Path, format: str) -> Iterator[Path]:
    """Files of some rows each, as `join_parts` takes them; each is gone when the next one is."""
    for address in answered:
        with _fetched(address, folder) as local:
            for chunk in open_source(local).chunks(CHUNK_ROWS):
                write_part(folder / "part", chunk, format)
                yield folder / "part"


@contextmanager
def _fetched(address: str, folder: Path) -> Iterator[Path]:
    local = folder / address.rpartition("/")[2]
    _storage(address).get(local)
    yield local
    local.unlink()


def _storage(address: str) -> Storage:
    return Storage(address, setting="--out")


def _bundle(address: str, folder: Path) -> Path:
    if not is_remote(address):
        return Path(address)
    return store.fetch(address, folder / "bundle").path


def _get_json(address: str, folder: Path) -> Any:
    with _fetched(address, folder) as local:
        return read_json(local)


def _put_json(value: Any, address: str, folder: Path) -> None:
    local = folder / address.rpartition("/")[2]
    write_json(local, value)
    _storage(address).put(local)
