"""The base of all typed artifacts: one JSON file with a schema version, validated when read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from grocer.artifacts.step import digest_of
from grocer.errors import ArtifactError
from grocer.io.atomic import write_json

Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""SHA-256 as 64 hexadecimal digits."""

Side = Literal["train", "validation", "test"]


def _distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) < len(labels):
        raise ValueError("labels must be distinct")
    return labels


Labels = Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_distinct)]


class Record(BaseModel):
    """Part of an artifact: immutable, strictly typed, without unknown keys, NaN or Inf."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )


T = TypeVar("T")


class BySide(Record, Generic[T]):
    """One value for each side of the split; iterating yields (side, value) pairs."""

    train: T
    validation: T
    test: T

    def __iter__(self) -> Iterator[tuple[Side, T]]:  # type: ignore[override]
        yield "train", self.train
        yield "validation", self.validation
        yield "test", self.test


class Artifact(Record):
    """What a stage reports about its output, stored as `FILE` in the output directory."""

    FILE: ClassVar[str]
    schema_version: int = Field(default=1, alias="schema")
    _directory: Path | None = PrivateAttr(default=None)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Return the artifact in `directory`.

        Raises:
            ArtifactError: `FILE` is missing, has another schema version, or is invalid.
        """
        path = directory / cls.FILE
        if not path.is_file():
            raise ArtifactError(f"{path}: file not found; {directory} is not a {cls.__name__}")
        artifact = cls.parse(path.read_bytes(), str(path))
        artifact._directory = directory
        return artifact

    @classmethod
    def parse(cls, text: str | bytes, source: str) -> Self:
        """Return the artifact that `text` describes; `source` names it in error messages.

        Raises:
            ArtifactError: the text is not JSON, has another schema version, or is invalid.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ArtifactError(f"{source}: invalid JSON: {error}") from error
        expected = cls.model_fields["schema_version"].default
        found = content.get("schema") if isinstance(content, dict) else None
        if type(found) is not int or found != expected:
            raise ArtifactError(
                f"{source}: schema version {found!r}, but this version of Grocer reads schema "
                f"version {expected}; run the step that writes it again",
                [f"schema: {found!r}, expected {expected}"],
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = explain(error)
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise ArtifactError(
                f"{source}: invalid (schema version {found}): {problems[0]}{more}", problems
            ) from error

    def write(self, directory: Path) -> None:
        """Write the artifact to `FILE` in `directory`."""
        write_json(directory / self.FILE, self.model_dump(mode="json"))

    @property
    def directory(self) -> Path:
        """The directory that the artifact was read from."""
        if self._directory is None:
            raise RuntimeError(f"this {type(self).__name__} was not read from a directory")
        return self._directory

    @property
    def digest(self) -> str:
        """SHA-256 of the whole directory, as the step that wrote it recorded it."""
        return digest_of(self.directory)


def explain(error: ValidationError) -> list[str]:
    """Return one line for each invalid value: its dotted key and what is wrong with it."""
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "artifact"
        lines.append(f"{key}: {_reason(item['type'], item['msg'], item['input'])}")
    return lines


def _reason(kind: str, message: str, value: Any) -> str:
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        return "unknown key"
    text = message.removeprefix("Value error, ")
    shown = f" (found {value!r:.80})" if isinstance(value, str | int | float | None) else ""
    return text[:1].lower() + text[1:] + shown
