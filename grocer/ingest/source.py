"""Where a run's tables come from: a folder, a zip or an address, as local files by table name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from grocer import progress
from grocer.errors import GrocerError, SourceError
from grocer.ingest.schema import TABLES
from grocer.io.storage import PROTOCOLS, Storage, is_remote
from grocer.io.zip import TABLE_SUFFIXES, unpack

CATALOGUE = "catalogue"


@contextmanager
def open_source(source: str, scratch: Path, own: bool = False) -> Iterator[Mapping[str, Path]]:
    """Yield a local CSV or Parquet file for each table found at `source`.

    `source` is a folder, a zip (with zips inside), or `s3://`, `gs://`, `https://` of one; with
    `own`, also a single file, which is then the table `catalogue`. `scratch` takes what has to be
    fetched or unpacked.

    Raises:
        SourceError: nothing is there, it can't be read, or it changed while it was read.
    """
    root = download(source, scratch / "fetched", own) if is_remote(source) else Path(source)
    if not root.exists():
        raise SourceError(f"--data {source}: there is no such file or folder")
    found = _candidates(root, source)
    before = {path: _state(path) for path in (root, *found) if path.is_file()}
    try:
        if root.suffix == ".zip":
            found = unpack(root, scratch / "unpacked", _wanted(own))
        nested = [path for path in found if path.name.endswith(".csv.zip")]
        for path in nested:
            found = [other for other in found if other != path]
            found += unpack(path, scratch / "unpacked", (path.name.removesuffix(".zip"),))
        yield _own(found, source) if own else _by_table(found, source)
    except GrocerError:
        _check_unchanged(before)
        raise
    _check_unchanged(before)


def download(source: str, target: Path, own: bool = False) -> Path:
    """Copy the file or the tables at a remote address (all of them with `own`) into `target`.

    Returns:
        The file's path, or `target`.

    Raises:
        SourceError: unknown protocol, no access, nothing found, or incomplete after all retries.
    """
    if source.partition("://")[0] not in PROTOCOLS:
        known = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise SourceError(f"--data {source}: unknown protocol; use {known}, or a local path")
    storage = Storage(source, setting="--data", step="ingest", error=SourceError)
    target.mkdir(parents=True)
    file = source.partition("?")[0].rpartition("/")[2]
    is_file = file.endswith((".zip", ".csv", ".parquet"))
    for name in [""] if is_file else _remote_tables(storage, own):
        size = storage.size(name)
        megabytes = f" ({size / 1e6:,.1f} MB)" if size else ""
        progress.say("ingest", f"downloading {name or source}{megabytes}")
        storage.get(target / (name or file), name)
    return target / file if is_file else target


def _remote_tables(storage: Storage, own: bool) -> list[str]:
    """Return the names of the tables in a remote folder.

    Web servers don't list folders: there, each possible name of a table is tried.
    """
    if storage.address.startswith(("s3://", "gs://")):
        names = [name for name in storage.list() if name.endswith(TABLE_SUFFIXES)]
        return [name for name in names if own or name.split(".")[0] in TABLES]
    if own:
        raise SourceError(f"--data {storage.address}: give the address of the file itself")
    names = [f"{table}{suffix}" for table in TABLES for suffix in TABLE_SUFFIXES]
    return [name for name in names if storage.exists(name)]


def _candidates(root: Path, source: str) -> list[Path]:
    if root.is_dir():
        return sorted(path for path in root.iterdir() if path.name.endswith(TABLE_SUFFIXES))
    if root.suffix not in (".csv", ".parquet", ".zip"):
        raise SourceError(f"--data {source}: expected a folder, a .zip, a .csv or a .parquet")
    return [root]


def _wanted(own: bool) -> Sequence[str]:
    """File names to look for in an archive; empty: all tables of whatever name."""
    return () if own else [f"{table}{suffix}" for table in TABLES for suffix in TABLE_SUFFIXES]


def _by_table(found: Sequence[Path], source: str) -> Mapping[str, Path]:
    files: dict[str, Path] = {}
    for path in found:
        if path.stem not in TABLES:
            continue
        if path.stem in files:
            raise SourceError(
                f"--data {source}: {path.stem} is there twice, as {files[path.stem].name} and "
                f"{path.name}; keep one"
            )
        files[path.stem] = path
    return {name: files[name] for name in TABLES if name in files}


def _own(found: Sequence[Path], source: str) -> Mapping[str, Path]:
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise SourceError(
            f"--data {source}: data.columns is set, so one .csv or .parquet is expected; there "
            f"are: {names}"
        )
    return {CATALOGUE: found[0]}


def _check_unchanged(before: Mapping[Path, tuple[int, int] | None]) -> None:
    for path, state in before.items():
        if _state(path) != state:
            raise SourceError(f"{path} changed while it was read; run again once it is complete")


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of last change, or None once the file is gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns
