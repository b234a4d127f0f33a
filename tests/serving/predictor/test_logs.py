"""Logs: frequent lines are limited."""

import json
import logging

import pytest

from serving.predictor import logs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which a test can change."""
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    return now


def test_frequent_lines_are_limited_to_ten_per_second(clock: list[float]) -> None:
    limit = logs.RateLimit()
    assert [limit.acquire() for _ in range(12)] == [0] * 10 + [None] * 2
    clock[0] = 101.5
    assert [limit.acquire() for _ in range(2)] == [2, 0]
    clock[0] = 200.0
    assert limit.acquire() == 0


def test_warnings_and_tracebacks_of_each_logger_are_limited(clock: list[float]) -> None:
    limit = logs.WarningLimit()

    def passed(logger: str, level: int) -> int:
        records = [logging.makeLogRecord({"name": logger, "levelno": level}) for _ in range(20)]
        return sum(map(limit.filter, records))

    assert passed("grocer.requests", logging.INFO) == 20
    assert passed("grocer.requests", logging.ERROR) == 10
    assert passed("kserve", logging.WARNING) == 10


def test_message_and_traceback_have_a_limited_length() -> None:
    error = ValueError("x" * 1_000_000)
    fields = {"msg": "%s", "args": (error,), "exc_info": (ValueError, error, None)}
    line = json.loads(logs.JsonFormatter().format(logging.makeLogRecord(fields)))
    assert len(line["message"]) == len(line["exception"]) == 20_000


def test_client_text_cannot_control_a_terminal() -> None:
    record = logging.makeLogRecord({"msg": "no model %s", "args": ("\x1b[2J\rö",)})
    assert logs.TerminalFormatter().format(record).endswith(" no model ?[2J?ö")
