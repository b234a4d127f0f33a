"""What stops a training run early and in one clear line: numbers that are none, a full GPU."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from grocer.errors import TrainingError

# GradScaler begins at 2^16 and halves: after this many halvings no scale is left to lower.
_SKIPS = 20


class FiniteGuard:
    """Refuses a loss or gradient that is no number before it can reach a weight or checkpoint.

    With fp16 the gradient's first overflows are no fault: GradScaler skips those steps and lowers
    its scale. A long row of them is.
    """

    def __init__(self, scaled: bool) -> None:
        self.allowed = _SKIPS if scaled else 0
        self._skipped = 0

    def loss(self, value: float, step: int, rate: float) -> None:
        """Check a batch's loss.

        Raises:
            TrainingError: with the step, the learning rate and what to try.
        """
        self._check("loss", value, step, rate)

    def gradient(self, norm: float, step: int, rate: float) -> None:
        """Check a step's gradient norm.

        Raises:
            TrainingError: as for the loss.
        """
        self._skipped = 0 if math.isfinite(norm) else self._skipped + 1
        if self._skipped > self.allowed:
            self._check("gradient norm", norm, step, rate)

    def _check(self, what: str, value: float, step: int, rate: float) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"step {step}: the {what} is {value} at learning rate {rate:.2g}; try a lower "
                "train.learning_rate, train.precision=fp32, or a lower train.max_grad_norm"
            )


@contextmanager
def explaining_memory() -> Iterator[None]:
    """Turn CUDA's out-of-memory error into what was asked, what there is, and what to lower.

    Raises:
        TrainingError: the GPU's memory was not enough.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        asked = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
        total = re.search(r"total capacity of ([\d.]+ \w+)", str(error))
        free = re.search(r"of which ([\d.]+ \w+) is free", str(error))
        raise TrainingError(
            f"the GPU is out of memory: {asked[1] if asked else 'more'} was asked for, "
            f"{free[1] if free else 'less'} of its {total[1] if total else 'memory'} was free; "
            "lower train.per_device_train_batch_size (and raise "
            "train.gradient_accumulation_steps), prompt.max_name_tokens or lora.r, "
            "and keep train.activation_checkpointing=true"
        ) from error
