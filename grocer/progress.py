"""Progress reporting: each report is a structured event and a human-readable line on stdout."""

import sys
import time
from collections.abc import Sequence

from grocer.errors import redacted
from grocer.events import Reason, emit


def say(step: str, text: str) -> None:
    """Report a message, printed as `grocer | train | fp16: compute capability 7.5 has no bf16`."""
    text = one_line(text)
    emit(step, "message", text=text)
    _print(f"grocer | {step} | {text}")


def table(step: str, rows: Sequence[Sequence[str]]) -> None:
    """Report rows of cells, the heading first, with a message for each row."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        text = "  ".join(padded).rstrip()
        emit(step, "message", text=text)
        _print(f"grocer | {step} | {text}")


def fail(step: str, text: str) -> None:
    """Report a user error that ends the step, printed as `grocer ! ingest | file not found`."""
    text = one_line(text)
    emit(step, "failed", text=text, user_error=True)
    _print(f"grocer ! {step} | {text}")


def verdict(step: str, passed: bool, reasons: Sequence[Reason]) -> None:
    """Report the verdict of the gate or of a canary's analysis, printed as a line per rule."""
    emit(step, "verdict", passed=passed, reasons=reasons)
    for reason in reasons:
        _print(f"grocer | {step} | {'passed' if reason.passed else 'FAILED'}: {reason.sentence}")
    _print(f"grocer | {step} | {step} {'passed' if passed else 'FAILED'}")


def one_line(text: str) -> str:
    """Return the text without line breaks, credentials, and what UTF-8 cannot encode.

    Other characters that are not printable become `?`: a name from a file could otherwise control
    the terminal.
    """
    line = " ".join(redacted(text).split()).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else "?" for c in line)


def _print(line: str) -> None:
    """Print a line in one write, so that output of other processes cannot split it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Ticker:
    """Reports the progress of a long operation, at most once every `every` seconds.

    `initial` items were done by an earlier attempt; the rate excludes them.
    """

    def __init__(
        self, step: str, total: int, unit: str, every: float = 2.0, initial: int = 0
    ) -> None:
        self.step, self.total, self.unit, self.every = step, total, unit, every
        self.initial = initial
        self.started = self.last = time.monotonic()

    def at(self, done: int, note: str = "") -> None:
        """Report that `done` items are done, the rate, the time left and a note."""
        now = time.monotonic()
        if done < self.total and now - self.last < self.every:
            return
        self.last = now
        rate = (done - self.initial) / max(now - self.started, 1e-9)
        left = (self.total - done) / max(rate, 1e-9)
        per_second = f"{rate:,.1f}/s" if rate >= 0.95 else f"{rate:.2g}/s"
        parts = [f"{done:,}/{self.total:,} {self.unit}", per_second, f"{left:.0f} s left"]
        text = one_line(" · ".join([*parts, note] if note else parts))
        emit(self.step, "progress", text=text, done=done, total=self.total)
        _print(f"grocer | {self.step} | {text}")
