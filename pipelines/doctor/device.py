"""Check torch, 4-bit weights and the GPU; print the result as one line of JSON.

Runs in a separate process, as a broken driver can crash or hang it.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from grocer.model.device import choose_compute_dtype, choose_precision

_WIDTH, _ROWS = 64, 8
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 2e-1}


def main() -> None:
    """Print the result; a package that cannot be imported ends with a traceback."""
    print(json.dumps({"torch": torch.__version__, "nf4": nf4_error("cpu"), "gpu": gpu()}))


def gpu() -> dict[str, Any] | None:
    """Return the CUDA device that a run would use, if there is one."""
    if not torch.cuda.is_available():
        return None
    dtype, reason = choose_compute_dtype("auto", "cuda")
    return {
        "name": torch.cuda.get_device_name(),
        "memory": torch.cuda.get_device_properties(0).total_memory,
        "precision": choose_precision("auto", dtype, "cuda"),
        "dtype": reason,
        "nf4": nf4_error("cuda"),
    }


def nf4_error(device: str) -> str | None:
    """Return why 4-bit weights do not work on a device, or None.

    Compares the output and the gradient of a layer with those of its dequantized weights, and
    these with the weights before quantization.
    """
    try:
        return _nf4_mismatch(device, choose_compute_dtype("auto", device)[0])
    except Exception as error:  # whatever a broken installation raises is the result
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _nf4_mismatch(device: str, dtype: torch.dtype) -> str | None:
    import bitsandbytes

    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(
        _WIDTH, _WIDTH, bias=False, compute_dtype=dtype, quant_type="nf4"
    )
    original = layer.weight.data.clone().to(device)
    layer = layer.to(device)
    layer.support_avx512bf16_for_cpu = False  # as in grocer.model.base
    inputs = torch.randn(_ROWS, _WIDTH, device=device, dtype=dtype, requires_grad=True)
    output = layer(inputs)
    output.sum().backward()
    state = layer.weight.quant_state
    weights = bitsandbytes.functional.dequantize_4bit(layer.weight.data, state).to(dtype)
    # NF4's widest step is 0.3 of a block's largest weight: half of it, and a margin for the scales.
    if (weights - original).abs().max() > 0.2 * original.abs().max():
        return "wrong dequantized weights"
    tolerance = {"atol": _TOLERANCE[dtype], "rtol": _TOLERANCE[dtype]}
    if not torch.allclose(output, inputs @ weights.T, **tolerance):
        return "wrong output"
    gradient = weights.sum(0).expand(_ROWS, _WIDTH)
    if not torch.allclose(inputs.grad, gradient, **tolerance):
        return "wrong gradient"
    return None


if __name__ == "__main__":
    main()
