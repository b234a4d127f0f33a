"""Protects the check of 4-bit weights: it computes with them, and sees where they are wrong."""

import json

import bitsandbytes
import pytest
import torch

from pipelines.doctor import device as doctor_device
from pipelines.doctor.device import gpu, nf4


def test_what_is_printed_is_one_line_of_json(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    doctor_device.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"torch": torch.__version__, "nf4": None, "gpu": None}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda weights: weights + 1, "its weights are not those that were quantised"),
        (lambda weights: weights.flip(0), "its weights are not those that were quantised"),
        (lambda weights: weights * 1.01, "its product is wrong"),
    ],
)
def test_weights_that_are_not_those_of_the_layer_are_seen(monkeypatch, wrong, said):
    real = bitsandbytes.functional.dequantize_4bit
    calls = []

    def dequantize(*arguments, **options):
        # The layer's own calls come first: only what it is compared with is spoiled.
        calls.append(arguments)
        made = real(*arguments, **options)
        return wrong(made) if len(calls) == total else made

    monkeypatch.setattr(bitsandbytes.functional, "dequantize_4bit", dequantize)
    total = 0
    assert nf4("cpu") is None
    total, calls = len(calls), []
    assert nf4("cpu") == said


def test_a_gradient_that_is_wrong_is_seen(monkeypatch):
    class Detached(bitsandbytes.nn.Linear4bit):
        def forward(self, names):
            return super().forward(names.detach()) + names.sum() * 0

    monkeypatch.setattr(bitsandbytes.nn, "Linear4bit", Detached)
    assert nf4("cpu") == "its gradient is wrong"


def test_whatever_the_library_raises_is_told(monkeypatch):
    def absent(*_, **__):
        raise RuntimeError("CUDA error: no kernel image\nis available")

    monkeypatch.setattr(bitsandbytes.nn, "Linear4bit", absent)
    assert nf4("cpu") == "RuntimeError: CUDA error: no kernel image is available"


@pytest.mark.parametrize(
    ("capability", "precision", "dtype"),
    [
        ((7, 5), "fp16: compute capability 7.5 has no bfloat16", "float16"),
        ((9, 0), "bf16: compute capability 9.0", "bfloat16"),
    ],
)
def test_a_card_is_told_with_its_precision(monkeypatch, capability, precision, dtype):
    properties = type("Properties", (), {"total_memory": 16 * 2**30})
    for name, value in {
        "is_available": True,
        "get_device_name": "a card",
        "get_device_capability": capability,
        "get_device_properties": properties,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(doctor_device, "nf4", lambda device: f"asked on {device}")
    found = gpu()
    assert (found["precision"], found["dtype"]) == (precision, dtype)
    assert found["nf4"] == "asked on cuda"


@pytest.mark.gpu
def test_nf4_on_a_gpu():
    assert gpu()["nf4"] is None
