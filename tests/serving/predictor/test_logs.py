"""Logs: frequent lines are limited."""

from __future__ import annotations

import pytest

from serving.predictor import logs


def test_frequent_lines_are_limited_to_one_per_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    limit = logs.RateLimit()
    assert [limit.acquire() for _ in range(4)] == [0, None, None, None]
    now = 101.5
    assert [limit.acquire() for _ in range(2)] == [3, None]
    now = 200.0
    assert limit.acquire() == 1
