"""Errors that users can fix.

    GrocerError             exit code 2, one line on stderr, no traceback
    ├── ConfigError         unknown recipe, setting or value
    ├── SourceError         input that is missing, inaccessible or unreadable
    ├── TableError          table with invalid columns, types or rows
    ├── ExpectationError    data that fails validation
    ├── CatalogueError      too few products or labels for training
    ├── ModelError          base model or adapter that can't be used
    ├── TrainingError       training that had to stop
    │   └── StoppedError    by SIGTERM; the same run resumes
    ├── BundleError         bundle that must not be served
    ├── ArtifactError       stage artifact that is missing, invalid or of another schema version
    ├── OutputError         output that can't be written
    ├── DeployError         rollout that failed
    ├── RegistryError       model registry that is not available or rejects a version
    └── StepError           pipeline step that ended with one of the above

A message names the file or setting, what is wrong with it, the limit, and the next step. Any other
exception is an internal error: exit code 1, with traceback.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


_URI = re.compile(
    r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}://)"
    # A password may have characters that end a host, as keys of S3 often do; a port has digits.
    r"([^\s/?#\"'<>]*@|[^\s/?#\"'<>:\[]+:(?!\d+[/?#])[^\s<>]*@)?"
    r"([^\s?#\"'<>]*)(\?[^\s#\"'<>]*)?"
)


def redacted(text: str) -> str:
    """Return the text without the user information and the query of every URI in it.

    Both may hold credentials, such as a password or the signature of a presigned URL.
    """

    def without_credentials(uri: re.Match[str]) -> str:
        scheme, user, path, query = uri.groups(default="")
        punctuation = query[len(query.rstrip(":;,.)")) :]
        return f"{scheme}{'***@' if user else ''}{path}{'?***' if query else ''}{punctuation}"

    return _URI.sub(without_credentials, text)


class GrocerError(Exception):
    """An error that the user can fix; `str(error)` is one line."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(redacted(message).split()))


class ConfigError(GrocerError):
    """A recipe, a setting or a value does not exist or is invalid."""


class SourceError(GrocerError):
    """An input is missing, inaccessible or unreadable."""


class TableError(GrocerError):
    """A table has invalid columns, types or rows."""


class ExpectationError(GrocerError):
    """The data fails validation."""


class CatalogueError(GrocerError):
    """The catalogue has too few products or labels for training."""


class ModelError(GrocerError):
    """A base model or an adapter can't be used."""


class TrainingError(GrocerError):
    """Training had to stop."""


class StoppedError(TrainingError):
    """Training was stopped by SIGTERM; the same run resumes."""

    exit_code = 128 + signal.SIGTERM


class BundleError(GrocerError):
    """A bundle was modified, failed the gate, or belongs to another base model."""


class ArtifactError(GrocerError):
    """A stage's artifact is missing, invalid or of another schema version."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems) or [message]
        """One line for each invalid value."""


class OutputError(GrocerError):
    """An output can't be written, or already exists."""


class DeployError(GrocerError):
    """A rollout failed."""


class RegistryError(GrocerError):
    """A model registry is not available, or rejects a version."""


class StepError(GrocerError):
    """A pipeline step failed with a user error; holds its message."""


def validation_problems(error: ValidationError) -> list[str]:
    """Return one line for each invalid value: its dotted key, what is wrong, and the value."""
    lines = []
    for item in _merged_unions(error.errors()):
        key, value = ".".join(map(str, item["loc"])), item["input"]
        explained = item["type"] in ("json_invalid", "value_error")  # the message has the value
        scalar = isinstance(value, str | int | float | None) and not explained
        found = f" (found {value!r:.80})" if scalar else ""
        lines.append(
            f"{key}{': ' if key else ''}{item['msg'].removeprefix('Value error, ')}{found}"
        )
    return lines


def _merged_unions(errors: Iterable[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Yield one error for a value that fits no type of a union; pydantic has one for each type."""
    for path, group in groupby(errors, key=lambda item: item["loc"][:-1]):
        items = list(group)
        if len(items) > 1 and any(str(item["loc"][-1]).startswith("literal[") for item in items):
            first, *others = (item["msg"] for item in items)
            message = ", or ".join([first, *(m.removeprefix("Input should be ") for m in others)])
            yield {**items[0], "loc": path, "msg": message}
        else:
            yield from items


def first_five(items: Sequence[str], separator: str) -> str:
    """Join the first five items, and the number of the others, for a message."""
    more = [f"and {len(items) - 5} more"] if len(items) > 5 else []
    return separator.join([*items[:5], *more])
