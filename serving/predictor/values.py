"""Values of a request's JSON: read strictly, or refused with the place where they stand."""

from __future__ import annotations

import json
from typing import Any

import orjson

from serving.predictor.errors import Refusal


def parse(text: bytes) -> Any:
    """JSON's value.

    Raises:
        Refusal: 400: names line and column.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if b"\\ud" in text.lower():
            # A lone surrogate is bad in one item: read on, so that the item can be named.
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                pass
        where = f"line {error.lineno}, column {error.colno}"
        raise Refusal(400, f"the body is not JSON: {where}") from None


def object_with(value: Any, what: str, keys: set[str]) -> dict[str, Any]:
    """The object that `what` must be, with none but these keys.

    Raises:
        Refusal: 400.
    """
    if not isinstance(value, dict):
        raise Refusal(400, f"{what}: expected an object with {', '.join(sorted(keys))}")
    if not keys.issuperset(value):
        raise Refusal(400, f"{what}: only {', '.join(sorted(keys))} may stand here")
    return value


def whole(value: Any) -> int | None:
    """A whole number, which JSON may spell 2 or 2.0; None for anything else."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None
