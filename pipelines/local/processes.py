"""Supervises a child process: its whole process group ends with the block that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE = 5.0  # seconds between SIGTERM and SIGKILL


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP within the block, as Ctrl-C does.

    A signal that is ignored already, as under nohup, stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    with _handling([n for n in numbers if signal.getsignal(n) != signal.SIG_IGN], interrupt):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C, SIGTERM and SIGHUP within the block, so that clean-up completes."""
    with _handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN):
        yield


@contextmanager
def _handling(numbers: Sequence[signal.Signals], handler: Any) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


@contextmanager
def supervised(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """Run `command` in a new process group; no process of the group outlives the block.

    Its stdout and stderr are both on `.stdout`, as text. Its stdin is a pipe that closes when this
    process exits, so the child can detect that.
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
    """Terminate the group: SIGTERM, wait, SIGKILL."""
    with undisturbed():
        _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while _group_alive(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _group_alive(process: subprocess.Popen[str]) -> bool:
    process.poll()  # reaps the leader, which counts as alive until then
    return _signal_group(process.pid, 0)


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to every process of the group; return False if there is none."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
