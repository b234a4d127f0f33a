"""A child process whose whole group ends when the block does, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE = 5.0  # seconds between asking a group to end and ending it


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP interrupt as Ctrl-C does: KeyboardInterrupt.

    One that whoever started us wants ignored (nohup) stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    heeded = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    with _handling(heeded, interrupt):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within the block no second Ctrl-C cuts short what the first one began."""
    with _handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN):
        yield


@contextmanager
def _handling(numbers: Sequence[signal.Signals], handler: Any) -> Iterator[None]:
    former = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def supervised(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """Run `command` in a process group of its own; no process of the group outlives the block.

    Its stdout and stderr arrive together, as text, on `.stdout`. Its stdin stays open while
    this process lives, so that it can tell when its parent is gone.
    """
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End the group: ask, wait, then kill."""
    with undisturbed():
        _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while _group_lives(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _group_lives(process: subprocess.Popen[str]) -> bool:
    process.poll()  # reaps the leader, which would count as alive until then
    return _signal_group(process.pid, 0)


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to every process of the group; False when there is none left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
