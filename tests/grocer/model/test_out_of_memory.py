"""A GPU that is out of memory ends training, evaluation and classification with one line."""

from __future__ import annotations

import pytest
import torch

from grocer.errors import ModelError
from grocer.model.out_of_memory import explain_out_of_memory

MESSAGE = (
    "CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total capacity of 14.56 GiB "
    "of which 812.12 MiB is free. Including non-PyTorch memory, this process has 13.7 GiB."
)


def test_error_names_sizes_and_advice() -> None:
    with pytest.raises(ModelError) as caught, explain_out_of_memory("lower lora.r"):
        raise torch.OutOfMemoryError(MESSAGE)
    assert "1.95 GiB, 812.12 MiB of 14.56 GiB free; lower lora.r" in str(caught.value)


def test_other_errors_are_unchanged() -> None:
    with pytest.raises(RuntimeError, match="another"), explain_out_of_memory():
        raise RuntimeError("another")
