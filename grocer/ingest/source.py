"""Find a run's tables in a directory, a zip archive or at a remote address, as local files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from grocer import progress
from grocer.errors import GrocerError, SourceError
from grocer.ingest.schema import TABLES
from grocer.io.storage import PROTOCOLS, Storage
from grocer.io.zip import TABLE_SUFFIXES, unpack

CATALOGUE = "catalogue"
"""Name of the table in a source that is a single table."""
State = tuple[int, int] | None


@contextmanager
def open_source(data: str, scratch: Path, single: bool = False) -> Iterator[Mapping[str, Path]]:
    """Yield a local CSV or Parquet file for each table of Instacart's schema found at `data`.

    Args:
        data: a directory, a zip archive (zips inside are unpacked too), or an `s3://`, `gs://` or
            `https://` address of one.
        scratch: directory for files that are downloaded or unpacked.
        single: expect a single table instead, in a file of any name; it is the table `CATALOGUE`.

    Raises:
        SourceError: nothing found, unreadable, or changed while it was read.
    """
    root = download(data, scratch / "downloads", single) if "://" in data else Path(data)
    if not root.exists():
        raise SourceError(f"--data {data}: no such file or directory")
    files = _table_files(root, data)
    before = {path: _state(path) for path in (root, *files) if path.is_file()}
    try:
        if root.suffix == ".zip":
            files = unpack(root, scratch / "unpacked", () if single else _table_names())
        for path in [path for path in files if path.name.endswith(".csv.zip")]:
            files.remove(path)
            files += unpack(path, scratch / "unpacked", (path.name.removesuffix(".zip"),))
        yield _single_table(files, data) if single else _by_table(files, data)
    except GrocerError:
        _check_unchanged(before)
        raise
    _check_unchanged(before)


def download(data: str, target: Path, single: bool = False) -> Path:
    """Copy the file, or the tables in the directory, at a remote address into `target`.

    Returns the path of the file, or `target`.

    Raises:
        SourceError: unknown protocol, no access, nothing found, or incomplete after all retries.
    """
    if data.partition("://")[0] not in PROTOCOLS:
        known = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise SourceError(f"--data {data}: unknown protocol; use {known}, or a local path")
    storage = Storage(data, setting="--data", step="ingest", error=SourceError)
    target.mkdir(parents=True)
    file = data.partition("?")[0].rpartition("/")[2]
    is_file = file.endswith((".zip", ".csv", ".parquet"))
    for name in [""] if is_file else _remote_tables(storage, single):
        size = storage.info(name).get("size")
        megabytes = f" ({size / 1e6:,.1f} MB)" if size else ""
        progress.say("ingest", f"downloading {name or data}{megabytes}")
        storage.get(target / (name or file), name)
    return target / file if is_file else target


def _remote_tables(storage: Storage, single: bool) -> list[str]:
    """Return the names of the table files in a remote directory.

    Web servers don't list directories, so each possible name of a table is tried there.
    """
    if storage.address.startswith(("s3://", "gs://")):
        names = [name for name in storage.list() if name.endswith(TABLE_SUFFIXES)]
        return [name for name in names if single or name.split(".")[0] in TABLES]
    if single:
        raise SourceError(f"--data {storage.address}: give the address of the file itself")
    return [name for name in _table_names() if storage.exists(name)]


def _table_files(root: Path, data: str) -> list[Path]:
    if root.is_dir():
        return sorted(path for path in root.iterdir() if path.name.endswith(TABLE_SUFFIXES))
    # Reading from a named pipe or a device could wait forever.
    if root.suffix not in (".csv", ".parquet", ".zip") or not root.is_file():
        raise SourceError(
            f"--data {data}: expected a directory, or a file whose name ends with .csv, .parquet "
            "or .zip (lower case); save a spreadsheet as CSV UTF-8 with commas"
        )
    return [root]


def _table_names() -> list[str]:
    return [f"{table}{suffix}" for table in TABLES for suffix in TABLE_SUFFIXES]


def _by_table(files: Sequence[Path], data: str) -> Mapping[str, Path]:
    """Return the file of each table of Instacart's schema; other files are ignored."""
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            raise SourceError(
                f"--data {data}: two files for {path.stem}, {found[path.stem].name} and "
                f"{path.name}; keep one"
            )
        if path.stem in TABLES:
            found[path.stem] = path
    return {name: found[name] for name in TABLES if name in found}


def _single_table(files: Sequence[Path], data: str) -> Mapping[str, Path]:
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise SourceError(
            f"--data {data}: expected a single .csv or .parquet, because data.columns is set; "
            f"found {names}; pass the file itself"
        )
    return {CATALOGUE: files[0]}


def _check_unchanged(before: Mapping[Path, State]) -> None:
    for path, state in before.items():
        if _state(path) != state:
            raise SourceError(f"{path} changed while it was read; run again once it is complete")


def _state(path: Path) -> State:
    """Return a file's size and modification time, or None if it was removed."""
    status = path.stat() if path.exists() else None
    return status and (status.st_size, status.st_mtime_ns)
