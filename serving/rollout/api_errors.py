"""Errors of Kubernetes' and Kubeflow's generated API clients, as text."""

from __future__ import annotations

import json
from typing import Any


def describe_error(error: Any, server: str) -> str:
    """Return why a request failed: the server's message, or the cause of a connection error.

    `error` is one of urllib3, or the `ApiException` of a generated client (kubernetes, kfp).
    """
    if code := getattr(error, "status", None):
        message = error_status(error).get("message") or error.reason
        return f"{server} rejected the request ({code}): {message}"
    return f"{server} unreachable: {root_cause(error)}"


def root_cause(error: BaseException) -> str:
    """Return the text of the innermost cause of a client's error, e.g. `Connection refused`."""
    while True:
        reason = getattr(error, "reason", None)
        inner = reason if isinstance(reason, BaseException) else error.__cause__
        if inner is None:
            return getattr(error, "strerror", None) or str(error) or type(error).__name__
        error = inner


def error_status(error: Any) -> dict[str, Any]:
    """Return the Kubernetes Status in an error's body; empty if there is none."""
    try:
        status = json.loads(error.body or "{}")
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}
