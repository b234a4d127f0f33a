"""Protects what is logged: JSON lines of known fields, and few lines where much is refused."""

from __future__ import annotations

import pytest

from serving.predictor import logs


def test_what_comes_by_the_thousand_is_logged_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    sparse = logs.Sparse()
    assert [sparse.due() for _ in range(4)] == [0, None, None, None]
    now = 101.5
    assert [sparse.due() for _ in range(2)] == [3, None]
    now = 200.0
    assert sparse.due() == 1
