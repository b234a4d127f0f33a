"""How the probabilities of the adapter and of the linear model make one prediction."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from grocer.artifacts.base import NonNegative, Record, Share

Strategy = Literal["adapter", "ensemble", "cascade", "linear"]
"""A classifier that can be evaluated and served."""
Temperature = Annotated[float, Field(gt=0.0)]


class Combination(Record):
    """A classifier's weights: p is proportional to p_adapter^adapter * p_linear^linear.

    With `adapter` and `linear` the other model has no part; a weight is then the reciprocal of a
    temperature. With `cascade` the linear model answers alone where its calibrated probability,
    the softmax of `linear_alone` * log p_linear, reaches `threshold`.
    """

    strategy: Strategy
    adapter: NonNegative
    """Weight of log p_adapter; 0 with `linear`."""
    linear: NonNegative
    """Weight of log p_linear; 0 with `adapter`."""
    linear_alone: NonNegative
    """Weight of log p_linear where the linear model answers alone; 0 except with `cascade`."""
    threshold: Share | None
    """The linear model answers alone from this probability on; None except with `cascade`."""
    aisle_temperature: Temperature
    """Temperature of the aisles within a department; 1 with one level of labels."""

    @property
    def uses_adapter(self) -> bool:
        """Whether the classifier needs the language model."""
        return self.strategy != "linear"

    @property
    def uses_linear(self) -> bool:
        """Whether the classifier needs the linear model."""
        return self.strategy != "adapter"

    @model_validator(mode="after")
    def _fits_strategy(self) -> Self:
        cascade = self.strategy == "cascade"
        problems = {
            "adapter and linear are both 0": not self.adapter + self.linear > 0,
            "adapter must be 0": self.adapter > 0 and not self.uses_adapter,
            "linear must be 0": self.linear > 0 and not self.uses_linear,
            "linear_alone must be positive": cascade and not self.linear_alone > 0,
            "linear_alone must be 0": not cascade and self.linear_alone > 0,
            "threshold is required": cascade and self.threshold is None,
            "threshold must be null": not cascade and self.threshold is not None,
            "aisle_temperature must be 1": self.aisle_temperature != 1.0
            and self.strategy in ("cascade", "linear"),
        }
        if found := [problem for problem, wrong in problems.items() if wrong]:
            raise ValueError(f"strategy {self.strategy!r}: {', '.join(found)}")
        return self
