"""Causes of connection errors."""

from serving.rollout.api_errors import root_cause


def test_root_cause_is_the_innermost() -> None:
    inner = ConnectionRefusedError(111, "Connection refused")
    outer = RuntimeError("Max retries exceeded")
    outer.reason = ValueError("new connection")
    outer.reason.__cause__ = inner
    assert root_cause(outer) == "Connection refused"
    assert root_cause(TimeoutError()) == "TimeoutError"
