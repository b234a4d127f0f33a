"""Protects the stops: a number that is none, and a GPU that is full, each said in one line."""

from __future__ import annotations

import math

import pytest
import torch

from grocer.errors import TrainingError
from grocer.training.memory_estimate import explain_out_of_memory
from grocer.training.trainer import FiniteGuard


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_none_stops_at_once(value: float, what: str) -> None:
    with pytest.raises(TrainingError) as caught:
        getattr(FiniteGuard(loss_scaling=False), f"check_{what}")(value, 12, 2e-4)
    for part in ("step 12", str(value), "0.0002", "train.learning_rate", "train.precision=fp32"):
        assert part in str(caught.value)


def test_a_scaler_may_skip_some_steps_but_not_all() -> None:
    guard = FiniteGuard(loss_scaling=True)
    for step in range(20):
        guard.check_gradient(math.inf, step, 1e-4)
    guard.check_gradient(1.0, 20, 1e-4)
    for step in range(20):
        guard.check_gradient(math.inf, step, 1e-4)
    with pytest.raises(TrainingError, match="step 41: the gradient norm is inf"):
        guard.check_gradient(math.inf, 41, 1e-4)


def test_a_scaler_excuses_no_loss() -> None:
    with pytest.raises(TrainingError):
        FiniteGuard(loss_scaling=True).check_loss(math.nan, 1, 1e-4)


def test_a_full_gpu_is_explained() -> None:
    message = (
        "CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total capacity of 14.56 GiB "
        "of which 812.12 MiB is free. Including non-PyTorch memory, this process has 13.7 GiB."
    )
    with pytest.raises(TrainingError) as caught, explain_out_of_memory():
        raise torch.cuda.OutOfMemoryError(message)
    text = str(caught.value)
    assert "requested 1.95 GiB, 812.12 MiB of 14.56 GiB free" in text
    for setting in ("train.per_device_train_batch_size", "prompt.max_name_tokens", "lora.r"):
        assert setting in text


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="another"), explain_out_of_memory():
        raise RuntimeError("another")
