"""What a step says while it works: plain lines on stdout that people and programs both read.

In a pod these lines are the log. On a laptop the local runner lets exactly these through and
keeps the frameworks' own output in a file.
"""

from __future__ import annotations

import sys
import time

SAY = "grocer | "
FAIL = "grocer ! "


def say(step: str, text: str) -> None:
    """Print one line of progress or of fact, e.g. `grocer | train | 40/320 · loss 0.41`."""
    _write(f"{SAY}{step} | {' '.join(text.split())}\n")


def fail(step: str, text: str) -> None:
    """Print the one line that says why a step ended with a user's mistake."""
    _write(f"{FAIL}{step} | {' '.join(text.split())}\n")


def _write(line: str) -> None:
    """Write a line at once: `print` writes its end apart, and others' output falls between."""
    sys.stdout.write(line)
    sys.stdout.flush()


class Ticker:
    """Says how far a long step has come, at most once each `every` seconds.

    `begun` is what an earlier attempt had done already: it counts, but not for the rate.
    """

    def __init__(
        self, step: str, total: int, unit: str, every: float = 2.0, begun: int = 0
    ) -> None:
        self.step, self.total, self.unit, self.every = step, total, unit, every
        self.begun = begun
        self.started = self.last = time.monotonic()

    def at(self, done: int, note: str = "") -> None:
        """Say `done` of `total`, the rate, and the time left."""
        now = time.monotonic()
        if done < self.total and now - self.last < self.every:
            return
        self.last = now
        rate = (done - self.begun) / max(now - self.started, 1e-9)
        left = (self.total - done) / max(rate, 1e-9)
        parts = [f"{done:,}/{self.total:,} {self.unit}", f"{rate:,.1f}/s", f"{left:.0f} s left"]
        say(self.step, " · ".join([*parts, note] if note else parts))
