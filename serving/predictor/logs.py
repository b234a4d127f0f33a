"""Logs on stderr: JSON lines, or short lines on a terminal. Product names are never logged."""

from __future__ import annotations

import json
import logging
import sys
import time

_FIELDS = ("request_id", "route", "code", "seconds", "abandoned", "refused", "unlogged", "digest")


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TerminalFormatter(logging.Formatter):
    """Formats a record as time, message and fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = [f"{name}={value}" for name, value in _fields(record).items()]
        text = " ".join([time.strftime("%H:%M:%S"), record.getMessage(), *fields])
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _fields(record: logging.LogRecord) -> dict[str, object]:
    values = {name: getattr(record, name, None) for name in _FIELDS}
    return {name: value for name, value in values.items() if value}


class RateLimit:
    """Limits frequent log lines to one per second."""

    def __init__(self) -> None:
        self._next, self._suppressed = 0.0, 0

    def acquire(self) -> int | None:
        """Return the number of lines suppressed since the last one; None suppresses this one."""
        now = time.monotonic()
        if now < self._next:
            self._suppressed += 1
            return None
        suppressed, self._suppressed, self._next = self._suppressed, 0, now + 1.0
        return suppressed


def configure() -> None:
    """Log to stderr: as JSON unless it is a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TerminalFormatter() if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("grocer").setLevel(logging.INFO)
    # KServe adds handlers unless its logger has one.
    logging.getLogger("kserve").addHandler(logging.NullHandler())
    logging.getLogger("kserve.trace").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
