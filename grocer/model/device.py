"""Device, data types and CPU threads for training and inference.

Each choice comes with its reason as one line for the log.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from grocer.config.run import RunConfig
from grocer.errors import ConfigError, ModelError

_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_BFLOAT16_CAPABILITY = 8
"""Minimum major compute capability of GPUs with bfloat16 units."""


@dataclass(frozen=True)
class Hardware:
    """Device, compute dtype of the 4-bit weights, and mixed precision (`fp16`, `bf16`, `fp32`)."""

    device: str
    dtype: torch.dtype
    dtype_reason: str
    precision: str
    precision_reason: str


def select_hardware(config: RunConfig) -> Hardware:
    """Resolve the `auto` settings of `config` for this machine."""
    device = choose_device(config.base.device)
    dtype, dtype_reason = choose_compute_dtype(config.base.compute_dtype, device)
    precision, precision_reason = choose_precision(config.train.precision, device)
    return Hardware(device, dtype, dtype_reason, precision, precision_reason)


def choose_device(setting: str) -> str:
    """Return `cuda` or `cpu` for `base.device`; ModelError if a required GPU is not visible."""
    available = torch.cuda.is_available()
    if setting == "cuda" and not available:
        raise ModelError(
            "base.device=cuda, but no CUDA device is visible; run on a GPU node, or use "
            "--recipe tiny on a CPU"
        )
    if setting == "auto":
        return "cuda" if available else "cpu"
    return setting


def choose_compute_dtype(setting: str, device: str) -> tuple[torch.dtype, str]:
    """Return the compute dtype of the 4-bit weights for `base.compute_dtype`, and the reason.

    Raises:
        ConfigError: bfloat16 on a GPU without bfloat16 units.
    """
    if setting == "auto" and device == "cpu":
        return torch.float32, "float32: half precision is not faster on a CPU"
    names = ("bfloat16", "float16")
    name, reason = _choose_half(setting, device, names, "base.compute_dtype")
    dtype: torch.dtype = getattr(torch, name)
    return dtype, reason


def choose_precision(setting: str, device: str) -> tuple[str, str]:
    """Return `fp16`, `bf16` or `fp32` for `train.precision`, and the reason.

    Raises:
        ConfigError: fp16 on a CPU, which would ignore it; bf16 on a GPU without bfloat16 units.
    """
    if setting == "fp16" and device == "cpu":
        raise ConfigError(
            "train.precision=fp16 needs a GPU: on a CPU it would silently train in fp32; "
            "set train.precision=auto"
        )
    if setting == "auto" and device == "cpu":
        return "fp32", "fp32: on a CPU"
    return _choose_half(setting, device, ("bf16", "fp16"), "train.precision")


def _choose_half(setting: str, device: str, names: tuple[str, str], key: str) -> tuple[str, str]:
    """Return the setting if it is not `auto`, else bfloat16 or float16, and the reason."""
    bfloat16, float16 = names
    if setting not in ("auto", bfloat16) or device == "cpu":
        return setting, f"{setting}: configured"
    # By capability: torch.cuda.is_bf16_supported() counts emulation too.
    major, minor = torch.cuda.get_device_capability()
    capability = f"compute capability {major}.{minor}"
    if major < _BFLOAT16_CAPABILITY and setting == bfloat16:
        raise ConfigError(f"{key}={setting}: {capability} has no bfloat16; use auto or {float16}")
    if major < _BFLOAT16_CAPABILITY:
        return float16, f"{float16}: {capability} has no bfloat16"
    return bfloat16, f"{bfloat16}: {capability if setting == 'auto' else 'configured'}"


def cpu_threads(spare: int = 0) -> int:
    """Return `OMP_NUM_THREADS` if it is set, otherwise the available cores minus `spare`."""
    configured = os.environ.get("OMP_NUM_THREADS", "")
    return int(configured) if configured.isdecimal() else max(1, available_cores() - spare)


def available_cores() -> int:
    """Return how many CPU cores this process may use: CPU affinity and the cgroup's CPU limit.

    torch considers only the affinity. In a pod limited to 2 cores on a node with 64 it would
    start 64 threads, which slow each other down.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    limit = _CPU_LIMIT.read_text() if _CPU_LIMIT.is_file() else "max"
    quota, _, period = limit.partition(" ")
    return cores if quota.strip() == "max" else max(1, min(cores, int(quota) // int(period)))
