"""The training record of an adapter."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from grocer.artifacts.base import Artifact, Count, NonNegative, PositiveCount, Record


class Loss(Record):
    """Loss at a step, in nats per completion token."""

    step: Count
    loss: float


class TrainingLoss(Loss):
    """Mean loss over the steps since the last entry."""

    grad_norm: float | None = None
    learning_rate: float | None = None


class Adapter(Artifact):
    """`training.json` of train; `adapter/`, `base.json` and the label set are beside it."""

    FILE: ClassVar = "training.json"
    schema_version: int = Field(default=2, alias="schema")
    base: str
    """Source of the base model."""
    device: str
    compute_dtype: str
    """Compute dtype of 4-bit weights, and the reason for it."""
    precision: str
    """Mixed precision: `fp16`, `bf16` or `fp32`."""
    packing: bool
    prefix_tokens: Count
    """Tokens of the instruction that a packed batch shares."""
    longest_tokens: PositiveCount
    truncated_names: Count
    logging_steps: PositiveCount
    examples: PositiveCount
    epochs: NonNegative
    steps: Count
    resumed_from_step: Count
    processes: PositiveCount
    seconds: NonNegative
    """Wall-clock time since the step that training resumed from."""
    examples_per_second: NonNegative
    tokens_per_second: NonNegative
    peak_memory_mb: NonNegative
    """In MiB."""
    peak_memory_of: Literal["GPU", "process"]
    parameters: PositiveCount
    trainable_parameters: PositiveCount
    losses: tuple[TrainingLoss, ...]
    validation_losses: tuple[Loss, ...]
    """Of the validation products after a step."""
