"""Atomic files and directories, JSON files, and SHA-256 digests.

All output goes to a temporary name in the same directory and is renamed once it is complete, so a
file with its final name is never incomplete, not even after a power failure.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grocer.errors import ArtifactError, OutputError

_CAUSES = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is exceeded",
    errno.ENOTDIR: "a parent is a file, not a directory",
    errno.EEXIST: "a parent is a file, not a directory",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ENOTEMPTY: "another process has just written it",
}


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `path` if the block raises no error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _temporary(path)
    part.touch(exist_ok=False)
    try:
        yield part
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """Return a new name beside a path; files of `tempfile` would not have the user's umask."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.part"


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, as `atomic_file` does, for a file in --out.

    Raises:
        OutputError: `path` can't be written, or is a device such as /dev/stdout, which the file
            would replace.
    """
    with output_errors(path):
        if path.exists() and not path.is_file():
            raise OutputError(f"cannot write {path}: not a regular file; choose another location")
        with atomic_file(path) as part:
            yield part


@contextmanager
def output_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory, which is renamed to `path` if the block raises no error.

    Raises:
        OutputError: `path` exists and is not an empty directory, or can't be written.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputError(f"{path} already exists; choose another directory or remove it first")
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _temporary(path)
        part.mkdir()
        try:
            yield part
            for each in part.rglob("*"):
                if not each.is_symlink():
                    _sync(each)
            part.rename(path)
            _sync(path.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def cached_directory(path: Path, fill: Callable[[Path], None]) -> Path:
    """Return `path`; if it does not exist, create it by `fill(temporary directory)`.

    If another process creates it meanwhile, its content is kept.

    Raises:
        OutputError: `path` can't be written.
    """
    if not path.is_dir():
        try:
            with output_directory(path) as part:
                fill(part)
        except OutputError:
            if not path.is_dir():
                raise
    return path


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Translate an `OSError` about a path that can't be written into an `OutputError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CAUSES:
            raise
        cause = _CAUSES[error.errno]
        raise OutputError(f"cannot write {path}: {cause}; choose another location") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN and Inf, which JSON lacks, raise `ValueError`."""
    with output_file(path) as part:
        part.write_bytes(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return the content of a file that `write_json` writes."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """Read a JSON file that Grocer wrote."""
    return json.loads(path.read_bytes())


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON (sorted keys, no spaces), in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def tree_files(root: Path) -> dict[str, Path]:
    """Return the files below `root` by relative path, sorted.

    Raises:
        ArtifactError: something in it is neither a regular file nor a directory. A link, which
            may point to anything, is never followed.
    """
    files = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            files[path.relative_to(root).as_posix()] = path
        elif not stat.S_ISDIR(mode):
            raise ArtifactError(f"{path}: expected a regular file or a directory; remove it")
    return files


def tree_digests(root: Path) -> dict[str, str]:
    """Return the SHA-256 of each of the `tree_files` of `root`, by relative path."""
    return {name: file_digest(path) for name, path in tree_files(root).items()}


def tree_digest(digests: Mapping[str, str]) -> str:
    """Return one digest for a directory, from its `tree_digests`."""
    return json_digest(dict(digests))
