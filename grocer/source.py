"""Where a run's tables come from: a folder, a zip, or an address, as local files by table name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from grocer.errors import SourceError
from grocer.schema import TABLES

SUFFIXES = (".csv", ".parquet")


@contextmanager
def open_source(source: str, scratch: Path) -> Iterator[Mapping[str, Path]]:
    """Yield the local CSV or Parquet file of each table found at `source`.

    `scratch` holds what had to be fetched or unpacked. Files must not change while in use.

    Raises:
        SourceError: nothing there, not readable, or changed while it was read.
    """
    root = Path(source)
    if not root.exists():
        raise SourceError(f"--data {source}: there is no such file or folder")
    files = {
        name: path
        for name in TABLES
        for suffix in SUFFIXES
        if (path := root / f"{name}{suffix}").is_file()
    }
    before = {path: _state(path) for path in files.values()}
    yield files
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
