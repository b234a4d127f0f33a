"""Training speed and memory of a Llama-2-7b on a GPU limited to a T4's memory, packed and plain.

    .venv/bin/python benchmarks/training_gpu.py [--products 2000] [--memory-gib 15]

The weights are random, which affects neither speed nor memory. Both sides train with float16
compute and fp16 mixed precision, as on a T4, so loss scaling is active. Prints peak memory,
examples/s and tokens/s of both, and the hours for one epoch of 40,000 products *on this GPU*.
Without a GPU, a small model is trained on the CPU in fp32. The last line is one JSON object;
`ratio` is examples/s, packed over plain.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch  # noqa: E402

from benchmarks.training import make_base, make_trainer, record_step_times  # noqa: E402
from grocer.artifacts.step import peak_rss_mb  # noqa: E402
from grocer.config.recipes import recipe  # noqa: E402
from grocer.config.run import RunConfig  # noqa: E402
from grocer.progress import say  # noqa: E402

EPOCH = 40_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--products", type=int, default=2000, help="training products, packed")
    parser.add_argument("--plain-products", type=int, default=400, help="training products, plain")
    parser.add_argument("--plain-batch", type=int, default=8, help="products per padded batch")
    parser.add_argument("--memory-gib", type=float, default=15.0, help="limit of GPU memory")
    parser.add_argument("--base", type=Path, help="directory to write or reuse the base")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, options.memory_gib * 2**30 / total))
    else:
        options.products, options.plain_products = 128, 64
    with tempfile.TemporaryDirectory() as scratch:
        base = options.base or Path(scratch)
        if not (base / "config.json").is_file():
            say("benchmark", "writing the base")
            write_base(base, on_gpu)
        packed = measure(base, options.products, 32, 1, on_gpu)
        say(
            "benchmark",
            f"packed: {packed['examples_per_second']:.1f} products/s; now padded batches",
        )
        batch = options.plain_batch
        plain = measure(base, options.plain_products, batch, 32 // batch, on_gpu, "packing=false")
    print(
        json.dumps(
            {
                "ratio": packed["examples_per_second"] / plain["examples_per_second"],
                "memory_ratio": plain["peak_memory_mb"] / packed["peak_memory_mb"],
                "device": torch.cuda.get_device_name(0) if on_gpu else "cpu",
                "true_shape": on_gpu,
                "cap_gib": options.memory_gib if on_gpu else None,
                "packed": packed,
                "plain": plain,
            }
        )
    )


def write_base(directory: Path, on_gpu: bool) -> None:
    """Write a base with the shape of Llama-2-7b on a GPU, or a small one on a CPU."""
    if on_gpu:
        # In host memory: float16 weights alone would exceed the limit.
        make_base(directory, 4096, 32, 11008, 32000, dtype=torch.float16)
    else:
        make_base(directory, 128, 2)


def measure(
    base: Path, products: int, batch: int, accumulated: int, on_gpu: bool, *extra: str
) -> dict[str, Any]:
    """Train on `products`; the first step is a warm-up and is not timed."""
    config = settings(products, batch, accumulated, on_gpu, *extra)
    trainer = make_trainer(base, config, Path(tempfile.mkdtemp()), rows=products)
    times = record_step_times(trainer)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    steps = len(times) - 1
    seconds = times[-1] - times[0]
    speed = steps * batch * accumulated / seconds
    scaler = trainer.accelerator.scaler
    result = {
        "products": products,
        "examples_per_second": speed,
        "tokens_per_second": trainer._total_train_tokens / (steps + 1) * steps / seconds,
        "peak_memory_mb": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_rss_mb(),
        "reserved_memory_mb": torch.cuda.max_memory_reserved() / 2**20 if on_gpu else None,
        "hours_for_40000": EPOCH / speed / 3600,
        "grad_scaler": scaler.get_scale() if scaler else None,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }
    assert all(map(math.isfinite, result["losses"])), result["losses"]
    del trainer
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    return result


def settings(products: int, batch: int, accumulated: int, on_gpu: bool, *extra: str) -> RunConfig:
    """Return the T4 recipe; on a CPU without the settings that need a GPU."""
    cpu = () if on_gpu else ("base.device=cpu", "base.compute_dtype=float32")
    precision = "fp16" if on_gpu else "fp32"
    return recipe("llama2-7b-t4").with_settings(
        [
            f"train.precision={precision}",
            f"train.max_steps={products // (batch * accumulated)}",
            f"train.per_device_train_batch_size={batch}",
            f"train.gradient_accumulation_steps={accumulated}",
            "train.logging_steps=1",
            *cpu,
            *(f"train.{setting}" for setting in extra),
        ]
    )


if __name__ == "__main__":
    main()
