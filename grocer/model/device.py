"""Device, data types and CPU threads for training and inference.

Each choice comes with its reason as one line for the log.
"""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from grocer.config.run import RunConfig
from grocer.errors import ConfigError, ModelError

_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_BFLOAT16_CAPABILITY = 8
"""Minimum major compute capability of GPUs with bfloat16 units."""
_MIN_SPEEDUP = 1.5
"""Minimum speed of bfloat16 relative to float32 at which a CPU computes in bfloat16."""

_PRECISIONS = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
_DTYPES = {precision: dtype for dtype, precision in _PRECISIONS.items()}


@dataclass(frozen=True)
class Hardware:
    """Device, compute dtype of the 4-bit weights, and mixed precision of training."""

    device: str
    dtype: torch.dtype
    dtype_reason: str
    precision: str
    """`fp16`, `bf16` or `fp32`."""


def select_hardware(config: RunConfig) -> Hardware:
    """Resolve the `auto` settings of `config` for this machine."""
    device = choose_device(config.base.device)
    dtype, dtype_reason = choose_compute_dtype(config.base.compute_dtype, device)
    precision = choose_precision(config.train.precision, dtype, device)
    return Hardware(device, dtype, dtype_reason, precision)


def choose_device(setting: str) -> str:
    """Return `cuda` or `cpu` for `base.device`; ModelError if a required GPU is not visible."""
    available = torch.cuda.is_available()
    if setting == "cuda" and not available:
        raise ModelError(
            "base.device=cuda, but no CUDA device is visible; run on a GPU node, or use "
            "--recipe smollm2 on a CPU"
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
        return choose_cpu_dtype()
    if setting not in ("auto", "bfloat16") or device == "cpu":
        return getattr(torch, setting), f"{setting}: configured"
    # By capability: torch.cuda.is_bf16_supported() counts emulation too.
    major, minor = torch.cuda.get_device_capability()
    capability = f"compute capability {major}.{minor}"
    if major >= _BFLOAT16_CAPABILITY:
        reason = capability if setting == "auto" else "configured"
        return torch.bfloat16, f"bfloat16: {reason}"
    if setting == "bfloat16":
        raise ConfigError(
            f"base.compute_dtype=bfloat16: {capability} has no bfloat16; use auto or float16"
        )
    return torch.float16, f"float16: {capability} has no bfloat16"


def choose_precision(setting: str, dtype: torch.dtype, device: str) -> str:
    """Return the mixed precision for `train.precision` if the 4-bit weights compute in `dtype`.

    It follows from `dtype`. With float16 only fp16 scales the loss; without that, small gradients
    through the 4-bit weights become 0.

    Raises:
        ConfigError: a precision other than that of `dtype`; float16 on a CPU, which would train
            without loss scaling.
    """
    precision = _PRECISIONS[dtype]
    if setting not in ("auto", precision):
        raise ConfigError(
            f"train.precision={setting} does not match the compute dtype {_name(dtype)}; use "
            f"train.precision=auto, or set base.compute_dtype={_name(_DTYPES[setting])}"
        )
    if precision == "fp16" and device == "cpu":
        raise ConfigError(
            "training in float16 needs a GPU, as loss scaling does; set base.compute_dtype=auto"
        )
    return precision


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@cache
def choose_cpu_dtype() -> tuple[torch.dtype, str]:
    """Return bfloat16 if this CPU multiplies matrices much faster in it, and the reason."""
    ratio = measure_speed("cpu", torch.bfloat16) / measure_speed("cpu", torch.float32)
    measured = f"a matrix product in bfloat16 is {ratio:.1f} times as fast as in float32"
    if ratio >= _MIN_SPEEDUP:
        return torch.bfloat16, f"bfloat16: {measured}"
    return torch.float32, f"float32: {measured} (bfloat16 is used from {_MIN_SPEEDUP:g})"


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


def available_memory(device: str) -> float:
    """Return usable bytes: free GPU memory, or on a CPU the machine's memory or cgroup limit."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return float(total if text == "max" else min(total, int(text)))


def measure_speed(device: str, dtype: torch.dtype) -> float:
    """Return the measured floating-point operations per second of a matrix product."""
    from torch.utils.benchmark import Timer

    size = 4096 if device == "cuda" else 512
    values = {"matrix": torch.ones(size, size, dtype=dtype, device=device)}
    timer = Timer("matrix @ matrix", globals=values, num_threads=torch.get_num_threads())
    return 2.0 * size**3 / timer.timeit(10).mean
