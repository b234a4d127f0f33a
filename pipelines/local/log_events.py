"""What the local runner's output says about the run: steps that start, speak, fail and end."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Literal

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# As kfp 2.17's task dispatcher logs them.
_STARTED = re.compile(r" - INFO - Executing task '([^']+)'$")
_ENDED = re.compile(r" - (?:INFO|ERROR) - Task '([^']+)' finished with status (SUCCESS|FAILURE)$")
# kfp's lines here, and those of its launcher on a cluster.
_FRAMEWORK = re.compile(r"\d\d:\d\d:\d\d\.\d{3} - |\[KFP Executor |[IWEF]\d{4} |-*$")
_END_OF_INPUT = "    }"  # of the JSON that each step of kfp prints before it begins
# As grocer.console prints them; a progress bar's unfinished line may stand before one.
_SPOKEN = re.compile(r"grocer ([|!]) ([a-z_]+) \| (.*)$")
_COUNTING = re.compile(r"[\d,]+/[\d,]+ ")  # as grocer.console.Ticker begins its lines


@dataclass(frozen=True)
class Event:
    """Something that happened in `step`; `text` is what it said, or how long it took if known."""

    kind: Literal["started", "said", "failed", "succeeded", "broke"]
    step: str
    text: str = ""

    @property
    def counts(self) -> bool:
        """Whether it says how far the step is, which the next one says anew."""
        return bool(_COUNTING.match(self.text))


def plain(line: str) -> str:
    """The line without colours and its line end."""
    return _COLOUR.sub("", line).rstrip()


def read(line: str) -> Event | None:
    """The event that a plain line tells of; None for all the rest."""
    if match := _SPOKEN.search(line):
        return Event("said" if match[1] == "|" else "failed", match[2], match[3])
    if match := _STARTED.search(line):
        return Event("started", match[1])
    if match := _ENDED.search(line):
        return Event("succeeded" if match[2] == "SUCCESS" else "broke", match[1])
    return None


class Outcome:
    """How a run went, from the lines that it printed.

    `step` is the one that ran last, `done` those that ended well, `mistake` what a step said
    about a mistake of the user's, `last` the last lines that the last step printed.
    """

    def __init__(self) -> None:
        self.step = self.mistake = ""
        self.done: set[str] = set()
        self.last: deque[str] = deque(maxlen=8)
        self._running = True

    def take(self, line: str) -> Event | None:
        """Learn from one plain line; the event that it tells of, if any."""
        event = read(line)
        if event is None:
            if line == _END_OF_INPUT:
                self.last.clear()
            elif self._running and not _FRAMEWORK.match(line.strip()):
                self.last.append(line)
        elif event.kind == "started":
            self.step = event.step
            self.last.clear()
            self._running = True
        elif event.kind == "failed":
            self.mistake = event.text
        elif event.kind == "succeeded":
            self.done.add(event.step)
        elif event.kind == "broke":
            self._running = False
        return event
