"""Device, data types and threads: chosen by compute capability and CPU limit, with a reason."""

import os
from pathlib import Path

import pytest
import torch

from grocer.config.recipes import RECIPES, recipe
from grocer.errors import ConfigError, ModelError
from grocer.model import device
from grocer.model.device import (
    available_cores,
    choose_compute_dtype,
    choose_cpu_dtype,
    choose_device,
    choose_precision,
    select_hardware,
)

T4, H100 = (7, 5), (9, 0)
PRECISIONS = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


def set_capability(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


def test_t4_uses_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    set_capability(monkeypatch, T4)
    dtype, reason = choose_compute_dtype("auto", "cuda")
    assert (dtype, "7.5" in reason) == (torch.float16, True)


def test_newer_gpus_use_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    set_capability(monkeypatch, H100)
    assert choose_compute_dtype("auto", "cuda")[0] is torch.bfloat16


def test_configured_types_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    set_capability(monkeypatch, H100)
    assert choose_compute_dtype("float16", "cuda")[0] is torch.float16
    assert choose_compute_dtype("bfloat16", "cuda")[0] is torch.bfloat16
    assert choose_compute_dtype("bfloat16", "cpu")[0] is torch.bfloat16


def test_t4_rejects_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    set_capability(monkeypatch, T4)
    with pytest.raises(ConfigError, match=r"base.compute_dtype=bfloat16: .* 7.5 .*auto or float16"):
        choose_compute_dtype("bfloat16", "cuda")


@pytest.mark.parametrize(("speedup", "dtype"), [(4.0, torch.bfloat16), (1.1, torch.float32)])
def test_cpu_uses_bfloat16_if_it_is_measured_to_be_faster(
    monkeypatch: pytest.MonkeyPatch, speedup: float, dtype: torch.dtype
) -> None:
    speed = {torch.bfloat16: speedup, torch.float32: 1.0}
    monkeypatch.setattr(device, "measure_speed", lambda _, dtype: speed[dtype])
    monkeypatch.setattr(device, "choose_cpu_dtype", choose_cpu_dtype.__wrapped__)
    chosen, reason = choose_compute_dtype("auto", "cpu")
    assert chosen is dtype
    assert f"{speedup:.1f} times" in reason


@pytest.mark.parametrize("setting", ["auto", "fp16", "bf16", "fp32"])
@pytest.mark.parametrize(("dtype", "precision"), PRECISIONS.items())
def test_precision_is_that_of_the_compute_dtype(
    setting: str, dtype: torch.dtype, precision: str
) -> None:
    """With float16 and another precision than fp16, there is no loss scaling."""
    if setting in ("auto", precision):
        assert choose_precision(setting, dtype, "cuda") == precision
        return
    with pytest.raises(ConfigError, match=rf"train.precision={setting} .*train.precision=auto"):
        choose_precision(setting, dtype, "cuda")


def test_cpu_rejects_training_in_float16() -> None:
    with pytest.raises(ConfigError, match=r"base.compute_dtype=auto"):
        choose_precision("auto", torch.float16, "cpu")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_scale_the_loss_if_they_compute_in_float16(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    set_capability(monkeypatch, H100)
    hardware = select_hardware(recipe(name))
    assert hardware.precision == PRECISIONS[hardware.dtype]


def test_missing_gpu_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(ModelError, match="--recipe smollm2 on a CPU"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000\n", 16),
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),  # half a core
        ("9900000 100000\n", 16),  # more than the affinity allows
        (None, 16),
    ],
)
def test_cores_are_limited_by_affinity_and_cgroup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None, expected: int
) -> None:
    if limit is not None:
        (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(device, "_CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert available_cores() == expected


def test_cores_without_affinity_or_cgroup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on macOS."""
    monkeypatch.setattr(device, "_CPU_LIMIT", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
