"""Error message of a GPU that is out of memory; without importing torch, which takes seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from grocer.errors import ModelError

_SIZES = ("Tried to allocate", "total capacity of", "of which")
INFERENCE_ADVICE = "end other processes on it (nvidia-smi), or use one with more memory"


@contextmanager
def explain_out_of_memory(advice: str = INFERENCE_ADVICE) -> Iterator[None]:
    """Raise a ModelError with sizes and advice if the GPU runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        sizes = [re.search(rf"{text} ([\d.]+ \w+)", str(error)) for text in _SIZES]
        requested, total, free = [size[1] if size else "unknown" for size in sizes]
        raise ModelError(
            f"the GPU is out of memory: requested {requested}, {free} of {total} free; {advice}"
        ) from error
