"""Base classes of the typed artifacts: one JSON file with a schema version, validated when read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Generic, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from grocer.artifacts.step import digest_of
from grocer.errors import ArtifactError, validation_problems
from grocer.io.atomic import write_json

Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""SHA-256 as 64 hexadecimal digits."""

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = get_args(Side)


def _distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) < len(labels):
        raise ValueError("labels must be distinct")
    return labels


Labels = Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_distinct)]


class Record(BaseModel):
    """Part of an artifact: immutable, strictly typed, without unknown keys, NaN or Inf."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, serialize_by_alias=True
    )


T = TypeVar("T")


class BySide(Record, Generic[T]):
    """One value for each side of the split; iterating yields (side, value) pairs."""

    train: T
    validation: T
    test: T


class Artifact(Record):
    """A description of a stage's output, stored as `FILE` in the output directory."""

    FILE: ClassVar[str]
    OTHER_VERSION: ClassVar[str] = "run the step that writes it again"
    """Advice in the error message for another schema version."""
    schema_version: int = Field(default=1, alias="schema")
    _directory: Path | None = PrivateAttr(default=None)

    @field_validator("schema_version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        expected = cls.model_fields["schema_version"].default
        if version != expected:
            raise ValueError(
                f"version {version}, but this version of Grocer reads version {expected}; "
                f"{cls.OTHER_VERSION}"
            )
        return version

    @model_validator(mode="after")
    def _has_version(self, info: ValidationInfo) -> Self:
        if info.mode == "json" and "schema_version" not in self.model_fields_set:
            raise ValueError("schema: Field required")
        return self

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Return the artifact in `directory`.

        Raises:
            ArtifactError: `FILE` is missing, has another schema version, or is invalid.
        """
        path = directory / cls.FILE
        if not path.is_file():
            raise ArtifactError(f"{path}: file not found; {directory} has no {cls.__name__}")
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
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = validation_problems(error)
            # The other problems of another version only follow from the version.
            if other := [problem for problem in problems if problem.startswith("schema: version")]:
                raise ArtifactError(f"{source}: {other[0]}", problems) from error
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            name = f"{cls.__name__} of schema version {cls.model_fields['schema_version'].default}"
            message = f"{source}: not a valid {name}: {problems[0]}{more}"
            raise ArtifactError(message, problems) from error

    def write(self, directory: Path) -> None:
        """Write the artifact to `FILE` in `directory`."""
        write_json(directory / self.FILE, self.model_dump())

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
