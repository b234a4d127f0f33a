"""Cron expressions as Kubeflow Pipelines reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from grocer.errors import ConfigError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, Sequence[str]], ...] = (
    ("seconds", 0, 59, ()),
    ("minutes", 0, 59, ()),
    ("hours", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
"""Name, smallest and largest value of each field, and names of its values."""
_PART = re.compile(r"(?:[*?]|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?")


def with_seconds(cron: str) -> str:
    """Return a cron expression with the field for seconds that Kubeflow Pipelines requires.

    Raises:
        ConfigError: another number of fields, or a value that is not valid in its field.
    """
    fields = cron.split()
    if len(fields) not in (5, 6):
        raise ConfigError(f"--cron {cron!r}: expected 5 fields, or 6 with seconds first")
    fields = ["0", *fields] if len(fields) == 5 else fields
    for field, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        if not all(_is_valid(part, low, high, names) for part in field.split(",")):
            values = f"{low} to {high}" + (f" or {names[0]} to {names[-1]}" if names else "")
            raise ConfigError(
                f"--cron {cron!r}: {field!r} is not valid for {name}; use {values}, ranges such as "
                f"{low}-{low + 4}, lists, steps such as */2, or *"
            )
    return " ".join(fields)


def _is_valid(part: str, low: int, high: int, names: Sequence[str]) -> bool:
    """Return whether an element of a field's list is valid: `*`, a value or range, or a step."""
    match = _PART.fullmatch(part.lower())
    if match is None:
        return False
    numbers = {name: str(low + index) for index, name in enumerate(names)}
    values = [numbers.get(value, value) for value in match.groups()[:2] if value is not None]
    if not all(value.isascii() and value.isdigit() for value in values):
        return False
    bounds = [int(value) for value in values]
    return bounds == sorted(bounds) and all(low <= bound <= high for bound in bounds)
