"""Logs on stderr: JSON lines, or short lines on a terminal. Product names are never logged."""

from __future__ import annotations

import json
import logging
import sys
import time

_LINES_PER_SECOND = 10
_MAX_CHARACTERS = 20_000
"""Of a message and of a traceback: KServe logs the name of an unknown model, of any length."""
_FIELDS = ("request_id", "route", "code", "seconds", "abandoned", "refused", "unlogged", "digest")


class JsonFormatter(logging.Formatter):
    """Formats a record and its fields as a JSON object."""

    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MAX_CHARACTERS],
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[:_MAX_CHARACTERS]
        return json.dumps(line, ensure_ascii=False)


class TerminalFormatter(logging.Formatter):
    """Formats a record as time, message and fields."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        fields = [f"{name}={value}" for name, value in _fields(record).items()]
        return " ".join([self.formatTime(record, "%H:%M:%S"), record.message, *fields])

    def format(self, record: logging.LogRecord) -> str:
        # KServe logs the name of an unknown model, which could otherwise control the terminal.
        text = super().format(record)
        return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    values = {name: getattr(record, name, None) for name in _FIELDS}
    return {name: value for name, value in values.items() if value}


class RateLimit:
    """Limits frequent log lines to ten per second."""

    def __init__(self) -> None:
        self._window, self._lines, self._suppressed = 0.0, 0, 0

    def acquire(self) -> int | None:
        """Return the number of lines suppressed since the last one; None suppresses this one."""
        now = time.monotonic()
        if now >= self._window + 1.0:
            self._window, self._lines = now, 0
        if self._lines >= _LINES_PER_SECOND:
            self._suppressed += 1
            return None
        self._lines += 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


class WarningLimit(logging.Filter):
    """Limits the warnings and errors of each logger, with their tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self._limits: dict[str, RateLimit] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        record.unlogged = self._limits.setdefault(record.name, RateLimit()).acquire()
        return record.unlogged is not None


def configure() -> None:
    """Log to stderr: as JSON unless it is a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TerminalFormatter() if sys.stderr.isatty() else JsonFormatter())
    handler.addFilter(WarningLimit())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("grocer").setLevel(logging.INFO)
    # KServe adds handlers unless its logger has one.
    logging.getLogger("kserve").addHandler(logging.NullHandler())
    logging.captureWarnings(True)
    for name in ("kserve.trace", "py.warnings"):
        logging.getLogger(name).setLevel(logging.ERROR)
