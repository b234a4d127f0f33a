"""Where a model runs and in which types, with the reason for each as one line for the log."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from grocer.config.run import RunConfig
from grocer.errors import ConfigError, ModelError

_BFLOAT16_SINCE = 8


@dataclass(frozen=True)
class Hardware:
    """The device, the type that 4-bit weights are computed in, and the mixed precision."""

    device: str
    dtype: torch.dtype
    dtype_reason: str
    precision: str
    precision_reason: str


def hardware(config: RunConfig) -> Hardware:
    """What `config` comes to on this machine.

    Raises:
        ModelError: a GPU is asked for and there is none.
        ConfigError: a precision that this device has not.
    """
    device = choose_device(config.base.device)
    dtype, dtype_reason = choose_compute_dtype(config.base.compute_dtype, device)
    precision, precision_reason = choose_precision(config.train.precision, device)
    return Hardware(device, dtype, dtype_reason, precision, precision_reason)


def choose_device(device: str) -> str:
    """`cuda` or `cpu`.

    Raises:
        ModelError: `cuda` was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ModelError(
            "base.device=cuda, but no CUDA device is visible here; run on a GPU node, or use "
            "--recipe tiny on a CPU"
        )
    if device == "auto":
        return "cuda" if available else "cpu"
    return device


def choose_compute_dtype(wanted: str, device: str) -> tuple[torch.dtype, str]:
    """The type that 4-bit weights are computed in, and why.

    Raises:
        ConfigError: bfloat16 on a GPU that has none.
    """
    if wanted != "auto":
        if wanted == "bfloat16":
            _require_bfloat16("base.compute_dtype=bfloat16", "float16", device)
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype, f"{wanted}: configured"
    if device == "cpu":
        return torch.float32, "float32: a CPU gains nothing from half precision here"
    # By capability, not torch.cuda.is_bf16_supported(), which counts emulation.
    capability = torch.cuda.get_device_capability()
    if capability[0] < _BFLOAT16_SINCE:
        return torch.float16, f"float16: {_named(capability)} has no bfloat16"
    return torch.bfloat16, f"bfloat16: {_named(capability)}"


def choose_precision(wanted: str, device: str) -> tuple[str, str]:
    """`fp16`, `bf16` or `fp32` for training, and why.

    Raises:
        ConfigError: fp16 on a CPU, where it would do nothing; bf16 on a GPU that has none.
    """
    if wanted == "fp16" and device == "cpu":
        raise ConfigError(
            "train.precision=fp16 needs a GPU: on a CPU it would silently train in fp32; "
            "set train.precision=auto"
        )
    if wanted != "auto":
        if wanted == "bf16":
            _require_bfloat16("train.precision=bf16", "fp16", device)
        return wanted, f"{wanted}: configured"
    if device == "cpu":
        return "fp32", "fp32: on a CPU"
    capability = torch.cuda.get_device_capability()
    if capability[0] < _BFLOAT16_SINCE:
        return "fp16", f"fp16: {_named(capability)} has no bfloat16"
    return "bf16", f"bf16: {_named(capability)}"


def _require_bfloat16(setting: str, instead: str, device: str) -> None:
    if device == "cuda" and torch.cuda.get_device_capability()[0] < _BFLOAT16_SINCE:
        where = _named(torch.cuda.get_device_capability())
        raise ConfigError(f"{setting}: {where} has no bfloat16; use auto or {instead}")


def _named(capability: tuple[int, int]) -> str:
    return f"compute capability {capability[0]}.{capability[1]}"
