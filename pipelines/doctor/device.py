"""What `grocer doctor` asks torch and bitsandbytes, and prints as one line of JSON."""

from __future__ import annotations

import json
from typing import Any

import torch

from grocer.model.device import choose_compute_dtype, choose_precision

_WIDTH, _ROWS = 64, 8
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 2e-1}


def main() -> None:
    """Print what is found; what can't even be imported ends with a traceback."""
    found = {"torch": torch.__version__, "nf4": nf4("cpu"), "gpu": gpu()}
    print(json.dumps(found))


def gpu() -> dict[str, Any] | None:
    """The CUDA device that a run would take, if there is one."""
    if not torch.cuda.is_available():
        return None
    return {
        "name": torch.cuda.get_device_name(),
        "memory": torch.cuda.get_device_properties(0).total_memory,
        "precision": choose_precision("auto", "cuda")[1],
        "dtype": choose_compute_dtype("auto", "cuda")[1].partition(":")[0],
        "nf4": nf4("cuda"),
    }


def nf4(device: str) -> str | None:
    """Why 4-bit weights don't work on a device; None where a layer of them computes and learns.

    Its product and its gradient are compared with those of the weights that it stands for, and
    these with the weights that it was made from.
    """
    try:
        return _fault(device, choose_compute_dtype("auto", device)[0])
    except Exception as error:  # anything at all that it raises is the answer
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _fault(device: str, dtype: torch.dtype) -> str | None:
    import bitsandbytes

    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(
        _WIDTH, _WIDTH, bias=False, compute_dtype=dtype, quant_type="nf4"
    )
    made_of = layer.weight.data.clone().to(device)
    layer = layer.to(device)
    layer.support_avx512bf16_for_cpu = False  # as a run has it: see grocer.models.load_nf4
    names = torch.randn(_ROWS, _WIDTH, device=device, dtype=dtype, requires_grad=True)
    given = layer(names)
    given.sum().backward()
    state = layer.weight.quant_state
    weights = bitsandbytes.functional.dequantize_4bit(layer.weight.data, state).to(dtype)
    # NF4's widest step is 0.3 of a block's largest weight: half of it, and some for the scales.
    if (weights - made_of).abs().max() > 0.2 * made_of.abs().max():
        return "its weights are not those that were quantised"
    near = {"atol": _TOLERANCE[dtype], "rtol": _TOLERANCE[dtype]}
    if not torch.allclose(given, names @ weights.T, **near):
        return "its product is wrong"
    gradient = weights.sum(0).expand(_ROWS, _WIDTH)
    if not torch.allclose(names.grad, gradient, **near):
        return "its gradient is wrong"
    return None


if __name__ == "__main__":
    main()
