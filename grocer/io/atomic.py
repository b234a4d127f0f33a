"""Files that are whole or absent, and the digests that name what is in them.

Everything Grocer writes goes to a temporary name in the same folder and is renamed once it
is complete, so whatever stands under a final name is whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grocer.errors import OutputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends without an error.

    Raises:
        OutputError: `path` can't be written.
    """
    with writing(path), atomic_file(path) as part:
        yield part


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """As `whole_file`, but raise the `OSError` itself where `path` can't be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory that becomes `path` when the block ends without an error.

    Raises:
        OutputError: `path` exists and is not an empty directory, or can't be written.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(f"{path} exists already; choose another directory or remove it first")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        with writing(path):
            yield part
            part.chmod(0o755)
            part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the errors of a place that can't be written into one clear line (OutputError)."""
    causes = {
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
        errno.EROFS: "the file system is read-only",
        errno.ENOSPC: "no space is left on the device",
        errno.EDQUOT: "the disk quota is used up",
        errno.ENOTDIR: "a parent of it is a file, not a directory",
        errno.EEXIST: "a parent of it is a file, not a directory",
    }
    try:
        yield
    except OSError as error:
        if error.errno not in causes:
            raise
        cause = causes[error.errno]
        raise OutputError(f"cannot write {path}: {cause}; choose another --out") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused, as JSON has neither."""
    with whole_file(path) as part:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that Grocer wrote."""
    return json.loads(path.read_text())


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces), in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def tree_digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file below `root`, by its path relative to `root`, sorted."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): file_digest(path) for path in files}


def tree_digest(digests: Mapping[str, str]) -> str:
    """One digest for a directory, from what `tree_digests` gave."""
    return json_digest(dict(digests))
