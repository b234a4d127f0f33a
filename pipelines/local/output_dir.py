"""The output directory of a run: written next to its final path and swapped in at the end."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from grocer.errors import OutputError
from grocer.io.atomic import output_errors
from pipelines.local.outputs import PAGES

# Everything that a run writes to its output directory; `--replace` removes nothing else.
CONTENT = {*PAGES, "summary.json", "lineage.json", "config.json", "run.log", "artifacts", "bundle"}
MIN_FREE = 100 * 2**20  # bytes; the smallest run writes about half of it


@contextmanager
def working_dir(
    out: Path, *, replace: bool, keep: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """Yield a hidden directory next to `out` for the run to work in, and remove it at the end.

    Problems with `out` are found before the block runs.

    Args:
        keep: the run's inputs by option, which must not be inside what `replace` removes.

    Raises:
        OutputError: `out` is not empty, cannot be written, or is in use by another run, or its
            disk is full.
    """
    keep = keep or {}
    _check_target(out, replace, keep)
    work = out.with_name(f".{out.name}.running")
    try:
        with output_errors(out):
            work.mkdir(parents=True, exist_ok=True)
            lock = os.open(work, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    try:
        _claim(lock, work, out)
        try:
            with output_errors(out):
                if restore(out):
                    _check_target(out, replace, keep)
                if (free := shutil.disk_usage(work).free) < MIN_FREE:
                    raise OutputError(
                        f"cannot write {out}: {free / 2**20:.0f} MiB free, but a run needs at "
                        f"least {MIN_FREE // 2**20} MiB; free some space or choose another --out"
                    )
                yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def _claim(lock: int, work: Path, out: Path) -> None:
    """Lock `work` for this run, and remove what a killed run left in it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"{out} is in use by another run; wait until it ends or choose another --out"
        ) from error
    except OSError as error:
        # Some network file systems have no locks: there, runs must not share an --out.
        if error.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.EINVAL):
            raise
    for left in work.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def _check_target(out: Path, replace: bool, keep: Mapping[str, str]) -> None:
    """Require that the run would not overwrite other content of `out`."""
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise OutputError(f"--out {out}: not a directory; choose another --out")
    if not os.access(out, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {out}: read-only; choose another --out")
    present = {path.name for path in out.iterdir()}
    if not present:
        return
    if "summary.json" not in present:
        raise OutputError(f"--out {out}: not empty and not a run of Grocer; choose another --out")
    if not replace:
        raise OutputError(
            f"--out {out}: contains an earlier run; use --replace or choose another --out"
        )
    if unknown := sorted(present - CONTENT):
        raise OutputError(
            f"--out {out}: --replace would remove {unknown[0]}, which Grocer did not write; move "
            "it or choose another --out"
        )
    for option, path in keep.items():
        if Path(path).is_relative_to(out):
            raise OutputError(f"--out {out}: --replace would remove {option} {path}")


def rejected_dir(out: Path) -> Path:
    """Return the directory next to `out` for the report of a failed validation.

    Raises:
        OutputError: it exists and has no validation report.
    """
    path = out.with_name(f"{out.name}.rejected")
    if os.path.lexists(path) and not (path / "validation.html").is_file():
        raise OutputError(
            f"{path}: exists, but is needed for the report of a failed validation; move it or "
            "choose another --out"
        )
    return path


def swap_in(new: Path, out: Path) -> None:
    """Rename the directory `new` to `out`, and remove a previous `out`.

    It is kept beside `out` until then: if this process is killed, `restore` completes the swap.
    """
    with output_errors(out):
        restore(out)
        if out.is_dir():
            out.rename(_previous(out))
        try:
            new.rename(out)
        finally:
            restore(out)


def restore(out: Path) -> bool:
    """Rename the previous `out` back if there is no new one, and remove it otherwise.

    Returns:
        Whether it was renamed back.
    """
    previous = _previous(out)
    if not previous.is_dir():
        return False
    if out.exists():
        shutil.rmtree(previous)
        return False
    previous.rename(out)
    return True


def _previous(out: Path) -> Path:
    return out.with_name(f".{out.name}.grocer-previous")
