"""Logs on stderr: JSON lines for machines, short lines for a terminal; never a product's name."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

_FIELDS = ("request_id", "route", "code", "seconds", "abandoned", "refused", "unlogged", "digest")


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class Lines(logging.Formatter):
    """What a person in front of a terminal wants."""

    def format(self, record: logging.LogRecord) -> str:
        fields = [f"{n}={getattr(record, n)}" for n in _FIELDS if hasattr(record, n)]
        text = " ".join([time.strftime("%H:%M:%S"), record.getMessage(), *fields])
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class Sparse:
    """What comes by the thousand and is logged once a second."""

    def __init__(self) -> None:
        self._next, self._left_out = 0.0, 0

    def due(self) -> int | None:
        """How many were left out since the last line, if it is time for another."""
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return None
        left_out, self._left_out, self._next = self._left_out, 0, now + 1.0
        return left_out


def configure() -> None:
    """Send everything to stderr: JSON, unless that is a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines() if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("grocer").setLevel(logging.INFO)
    # KServe installs handlers of its own unless its logger has one already.
    logging.getLogger("kserve").addHandler(logging.NullHandler())
    logging.getLogger("kserve.trace").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
