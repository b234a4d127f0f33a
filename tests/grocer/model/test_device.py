"""Protects the choice of device and types: by compute capability, with the reason."""

from __future__ import annotations

import os

import pytest
import torch

from grocer.errors import ConfigError, ModelError
from grocer.model import device as module
from grocer.model.device import (
    available_cores,
    choose_compute_dtype,
    choose_device,
    choose_precision,
)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return monkeypatch


def capable(card: pytest.MonkeyPatch, major: int, minor: int) -> None:
    card.setattr(torch.cuda, "get_device_capability", lambda: (major, minor))


def test_a_t4_computes_in_half_precision(card: pytest.MonkeyPatch) -> None:
    capable(card, 7, 5)
    assert choose_precision("auto", "cuda") == (
        "fp16",
        "fp16: compute capability 7.5 has no bfloat16",
    )
    dtype, reason = choose_compute_dtype("auto", "cuda")
    assert dtype is torch.float16
    assert "7.5" in reason


def test_newer_cards_use_bfloat16(card: pytest.MonkeyPatch) -> None:
    capable(card, 9, 0)
    assert choose_precision("auto", "cuda") == ("bf16", "bf16: compute capability 9.0")
    assert choose_compute_dtype("auto", "cuda")[0] is torch.bfloat16


def test_a_t4_refuses_bfloat16(card: pytest.MonkeyPatch) -> None:
    capable(card, 7, 5)
    with pytest.raises(ConfigError, match=r"train.precision=bf16: .* 7.5 has no bfloat16"):
        choose_precision("bf16", "cuda")
    with pytest.raises(ConfigError, match=r"base.compute_dtype=bfloat16: .* use auto or float16"):
        choose_compute_dtype("bfloat16", "cuda")


def test_a_cpu_refuses_to_pretend_fp16() -> None:
    assert choose_precision("auto", "cpu")[0] == "fp32"
    with pytest.raises(ConfigError, match="silently train in fp32"):
        choose_precision("fp16", "cpu")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(ModelError, match="--recipe tiny on a CPU"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000\n", 16),
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),  # half a core
        ("9900000 100000\n", 16),
        (None, 16),
    ],
)
def test_available_cores_is_the_minimum_of_affinity_and_cpu_limit(
    monkeypatch, tmp_path, limit, expected
) -> None:
    if limit is not None:
        (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(module, "_CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert available_cores() == expected


def test_available_cores_without_affinity_counts_all(monkeypatch, tmp_path) -> None:
    """macOS has neither CPU affinity nor cgroups."""
    monkeypatch.setattr(module, "_CPU_LIMIT", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
