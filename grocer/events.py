"""Structured events of pipeline steps: one JSON object per line.

    {"event": "succeeded", "step": "train", "time": 1764433920.125, "seconds": 93.4}

The local runner names a file in `GROCER_EVENTS`, to which all steps append. In a pod the variable
is not set, and each event is a line of stdout behind `PREFIX`, so the pod's log keeps it.
"""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

VARIABLE = "GROCER_EVENTS"
PREFIX = "grocer-event "

Kind = Literal["started", "progress", "message", "failed", "succeeded", "verdict"]


class Reason(BaseModel):
    """The outcome of one gate rule; `sentence` has the measured value and the limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rule: str
    passed: bool
    sentence: str


class Event(BaseModel):
    """An event of a step. Fields that do not apply to its kind keep their default."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    event: Kind
    step: str
    time: float = Field(default_factory=time.time)
    """Seconds since the epoch."""
    text: str = ""
    """Message, progress as text, or error message."""
    done: int | None = None
    total: int | None = None
    seconds: float | None = None
    """Duration of a step that succeeded."""
    user_error: bool = False
    """Whether the step failed because of its input or configuration (a `GrocerError`)."""
    passed: bool = False
    """The gate's verdict."""
    reasons: tuple[Reason, ...] = ()


def emit(step: str, kind: Kind, **fields: Any) -> None:
    """Append an event to the file that `GROCER_EVENTS` names, or print it behind `PREFIX`.

    An event is a single write, so lines of several processes do not mix. A file that cannot be
    written, as on a full disk, is ignored: the step's own error matters more.
    """
    event = Event(event=kind, step=step, **fields)
    content = event.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps(content | {"time": round(event.time, 3)})
    path = os.environ.get(VARIABLE)
    if not path:
        sys.stdout.write(f"{PREFIX}{text}\n")
        sys.stdout.flush()
        return
    # The leading newline ends a line that another process could not complete.
    with suppress(OSError), open(path, "ab", buffering=0) as file:
        file.write(f"\n{text}\n".encode())


def parse(line: str | bytes) -> Event | None:
    """Return the event in a line of JSON; None if the line is not an event."""
    try:
        return Event.model_validate_json(line)
    except ValidationError:
        return None


def split_log(log: str) -> tuple[list[Event], list[str]]:
    """Return the events in a pod's log, and its other lines that are not blank."""
    events, others = [], []
    for line in log.split("\n"):
        # An unfinished progress bar may precede the prefix.
        _, prefix, text = line.partition(PREFIX)
        event = parse(text) if prefix else None
        if event:
            events.append(event)
        elif line.strip():
            others.append(line.rstrip())
    return events, others


class EventFile:
    """Reads events from a file that steps are appending to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read(self) -> list[Event]:
        """Return the events since the last call; an incomplete last line is left for the next."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                complete, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._offset += len(complete + newline)
        return [event for line in complete.split(b"\n") if (event := parse(line))]
