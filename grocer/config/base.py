"""Base class and shared field types of all configuration sections."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base class of a section: immutable, without unknown keys, coercion, NaN and infinity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @field_validator("*")
    @classmethod
    def _text_is_not_empty(cls, value: Any) -> Any:
        if value == "":  # such as an unset variable of the shell
            raise ValueError("empty; expected a value, or null if the setting can be null")
        return value
