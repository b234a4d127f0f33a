"""The check of 4-bit weights: it detects wrong weights, outputs and gradients."""

import json

import bitsandbytes
import pytest
import torch

from pipelines.doctor import device
from pipelines.doctor.device import gpu, nf4_error


def test_output_is_one_line_of_json(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"torch": torch.__version__, "nf4": None, "gpu": None}


@pytest.mark.parametrize(
    ("corrupt", "error"),
    [
        (lambda weights: weights + 1, "wrong dequantized weights"),
        (lambda weights: weights.flip(0), "wrong dequantized weights"),
        (lambda weights: weights * 1.01, "wrong output"),
    ],
)
def test_wrong_weights_are_detected(monkeypatch, corrupt, error):
    real = bitsandbytes.functional.dequantize_4bit
    calls = []

    def dequantize(*arguments, **options):
        # The last call is the reference; the calls before it are the layer's own.
        calls.append(arguments)
        weights = real(*arguments, **options)
        return corrupt(weights) if len(calls) == total else weights

    monkeypatch.setattr(bitsandbytes.functional, "dequantize_4bit", dequantize)
    total = 0
    assert nf4_error("cpu") is None
    total, calls = len(calls), []
    assert nf4_error("cpu") == error


def test_wrong_gradient_is_detected(monkeypatch):
    class Detached(bitsandbytes.nn.Linear4bit):
        def forward(self, inputs):
            return super().forward(inputs.detach()) + inputs.sum() * 0

    monkeypatch.setattr(bitsandbytes.nn, "Linear4bit", Detached)
    assert nf4_error("cpu") == "wrong gradient"


def test_library_error_is_the_result(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("CUDA error: no kernel image\nis available")

    monkeypatch.setattr(bitsandbytes.nn, "Linear4bit", broken)
    assert nf4_error("cpu") == "RuntimeError: CUDA error: no kernel image is available"


@pytest.mark.parametrize(
    ("capability", "precision", "dtype"),
    [((7, 5), "fp16", "float16: compute capability 7.5"), ((9, 0), "bf16", "bfloat16: ")],
)
def test_gpu_precision_follows_compute_capability(monkeypatch, capability, precision, dtype):
    properties = type("Properties", (), {"total_memory": 16 * 2**30})
    for name, value in {
        "is_available": True,
        "get_device_name": "a GPU",
        "get_device_capability": capability,
        "get_device_properties": properties,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(device, "nf4_error", lambda device: f"checked on {device}")
    result = gpu()
    assert result["dtype"].startswith(dtype)
    assert (result["precision"], result["nf4"]) == (precision, "checked on cuda")


@pytest.mark.gpu
def test_nf4_on_a_gpu():
    assert gpu()["nf4"] is None
