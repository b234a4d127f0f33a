"""The directory that a run leaves: worked on beside its final name, and swapped in at the end."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grocer.errors import OutputError
from grocer.io.atomic import output_errors

# All that a run leaves in its output directory: `--replace` removes nothing else.
CONTENT = frozenset(
    {
        "summary.json",
        "config.json",
        "report.html",
        "validation.html",
        "split.html",
        "loss.html",
        "decision.md",
        "run.log",
        "artifacts",
        "bundle",
    }
)
ROOM = 100 * 2**20  # bytes; the smallest run writes about half of it


@contextmanager
def workplace(out: Path, *, replace: bool, keep: Path | None = None) -> Iterator[Path]:
    """Yield a hidden directory beside `out`, for a run to work in; it is removed at the end.

    That `out` can be made there is seen before the block runs, so before anything costs time.
    `keep` is a local source: it must not lie in what `replace` removes.

    Raises:
        OutputError: `out` holds something, can't be written, is being written by another run,
            or its disk is full.
    """
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
            _check_room(work, out)
            with output_errors(out):
                yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def _claim(lock: int, work: Path, out: Path) -> None:
    """Make `work` this run's alone; what a killed run left in it goes."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"another run is at work on {out}; wait for it, or choose another --out"
        ) from error
    except OSError as error:
        # Some network file systems know no locks: there, runs must not share an --out.
        if error.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.EINVAL):
            raise
    for left in work.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def _check_room(work: Path, out: Path) -> None:
    """Refuse a disk that can't even hold the smallest run."""
    free = shutil.disk_usage(work).free
    if free < ROOM:
        raise OutputError(
            f"cannot write {out}: {free / 2**20:.0f} MiB are free there and a run needs "
            f"{ROOM // 2**20} MiB at least; free some or choose another --out"
        )


def _check_target(out: Path, replace: bool, keep: Path | None) -> None:
    """Refuse an `out` whose present content a run would have to destroy."""
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise OutputError(f"{out} is a file, not a directory; choose another --out")
    if not os.access(out, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {out}: it is read-only; choose another --out")
    present = {path.name for path in out.iterdir()}
    if not present:
        return
    if "summary.json" not in present:
        raise OutputError(f"{out} is not empty and holds no run of Grocer; choose another --out")
    if not replace:
        raise OutputError(f"{out} holds an earlier run; give --replace, or another --out")
    if strange := sorted(present - CONTENT):
        raise OutputError(
            f"{out} holds {strange[0]}, which no run of Grocer wrote: --replace would remove it; "
            "move it, or choose another --out"
        )
    if keep is not None and keep.is_relative_to(out):
        raise OutputError(f"--data {keep} lies in {out}, which --replace would remove")


def rejection(out: Path) -> Path:
    """Where a run puts what it found when expectations fail: beside `out`.

    Raises:
        OutputError: something else is there.
    """
    beside = out.with_name(f"{out.name}.rejected")
    if os.path.lexists(beside) and not (beside / "validation.html").is_file():
        raise OutputError(
            f"{beside} would hold what validation finds, but is something else; move it, or "
            "choose another --out"
        )
    return beside


def swap_in(made: Path, out: Path, work: Path) -> None:
    """Put the directory `made` under the name `out`; what stood there moves into `work`."""
    with output_errors(out):
        former = work / "former"
        if out.is_dir():
            out.rename(former)
        try:
            made.rename(out)
        except OSError:
            if former.is_dir():
                former.rename(out)
            raise
