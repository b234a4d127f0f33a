"""The measurements of `training_gpu.py`, one per process."""

from __future__ import annotations

import gc
import importlib
import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks import bases, scoring
from benchmarks.training import accumulate, losses, make_trainer, record_step_times
from grocer.artifacts.step import peak_rss_mb
from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from grocer.model.base import load_nf4, load_tokenizer
from grocer.model.prompts.template import template
from grocer.model.prompts.tokenization import Encoder

EPOCH = 40_000
STEPS = 40
"""Maximum optimizer steps of a measurement; the first `WARM_UP` are not timed."""
WARM_UP = 2
NAMES = 2048
"""Names that are scored or trained on; a multiple of all batches, so that each one is full."""
TOKEN_BUDGETS = (1024, 4096)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measurement."""

    name: str
    kind: str
    """`write`: write the base; `packed`, `label`, `plain` or `padding_free` training; `scoring`,
    `generate` or `vllm`."""
    base: str = ""
    """Name of the measurement that writes the base."""
    limit: float = 75.0
    """Seconds."""
    batch: int = 32
    """Products per optimizer step."""
    batches: tuple[int, ...] = (0,)
    """Products per forward pass, tried in this order until they fit; 0: `batch`."""
    checkpointing: bool = True


def _training(base: str, kind: str, batch: int, checkpointing: bool = True) -> Measurement:
    name = f"{base}-{kind.replace('_', '-')}-{batch}"
    return Measurement(
        name=name if checkpointing else f"{name}-without-checkpointing",
        kind=kind,
        base=f"{base}-base",
        batch=batch,
        batches=(0,) if kind in ("packed", "label") else (0, 8, 2) if checkpointing else (8, 2),
        checkpointing=checkpointing,
    )


# The most important ones first: the time of the whole run is limited.
_ALL = (
    Measurement(name="7b-base", kind="write", limit=180.0),
    _training("7b", "packed", 32),
    _training("7b", "plain", 32),
    _training("7b", "padding_free", 32),
    _training("7b", "packed", 128),
    Measurement(name="7b-scoring", kind="scoring", base="7b-base"),
    Measurement(name="7b-generate", kind="generate", base="7b-base"),
    Measurement(name="smollm2-base", kind="write"),
    _training("smollm2", "label", 32, checkpointing=False),
    _training("smollm2", "plain", 32, checkpointing=False),
    _training("7b", "packed", 32, checkpointing=False),
    _training("7b", "packed", 128, checkpointing=False),
    _training("7b", "plain", 32, checkpointing=False),
    _training("7b", "padding_free", 32, checkpointing=False),
    Measurement(name="7b-vllm", kind="vllm", base="7b-base", limit=150.0),
    _training("smollm2", "label", 128, checkpointing=False),
)
MEASUREMENTS = {each.name: each for each in _ALL}


def perform(
    measurement: Measurement, batch: int, work: Path, memory_gib: float, seconds: float
) -> dict[str, Any]:
    """Return the result of a measurement.

    Args:
        batch: products per forward pass.
        work: directory of the bases.
        memory_gib: limit of GPU memory; does not apply to writing the base.
        seconds: training stops after this time.
    """
    if measurement.kind == "write":
        return write_base(work / measurement.name)
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory_gib * 2**30 / total))
    base = work / measurement.base
    if measurement.kind == "vllm":
        return guided_choice(base, memory_gib)
    if measurement.kind in ("scoring", "generate"):
        return score(base, measurement.kind)
    return train(base, measurement, batch or measurement.batch, seconds)


def write_base(directory: Path) -> dict[str, Any]:
    """Write a base with random weights in 16 bits; the 7b in NF4 too, which loads faster."""
    on_gpu = torch.cuda.is_available()
    large = directory.name == "7b-base"
    shape = bases.SHAPES["tiny" if not on_gpu else "llama2-7b" if large else "smollm2"]
    device, dtype = ("cuda", torch.float16) if on_gpu else ("cpu", torch.float32)
    bases.write_random(directory, shape, device, dtype)
    gc.collect()
    torch.cuda.empty_cache()
    if large:
        model = load_nf4(directory, dtype, device, dequantize=False)
        model.save_pretrained(directory / "nf4")
        for path in directory.glob("*token*"):
            shutil.copyfile(path, directory / "nf4" / path.name)
    return {"shape": vars(shape)}


def train(base: Path, measurement: Measurement, batch: int, seconds: float) -> dict[str, Any]:
    """Train for `seconds`, or `STEPS` steps if they take less."""
    on_gpu, kind = torch.cuda.is_available(), measurement.kind
    config = accumulate(training_config(measurement), batch)
    if (nf4 := base / "nf4").is_dir():
        base = nf4
    with tempfile.TemporaryDirectory() as out:
        padding_free = kind == "padding_free"
        trainer = make_trainer(base, config, Path(out), rows=NAMES, padding_free=padding_free)
        times = record_step_times(trainer)
        stop_after(trainer, seconds)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    steps = len(times) - WARM_UP
    elapsed = times[-1] - times[WARM_UP - 1]
    speed = steps * measurement.batch / elapsed
    scaler = trainer.accelerator.scaler
    if not all(map(math.isfinite, losses(trainer))):
        raise FloatingPointError(f"losses: {losses(trainer)}")
    return {
        "products_per_second": speed,
        "tokens_per_second": trainer._total_train_tokens / len(times) * steps / elapsed,
        "hours_for_40000": EPOCH / speed / 3600,
        "batch": batch,
        "steps": steps,
        "grad_scaler": scaler.get_scale() if scaler else None,
        **memory(),
        "losses": losses(trainer)[:5],
    }


def training_config(measurement: Measurement) -> RunConfig:
    """Return the recipe; on a CPU without the settings that need a GPU."""
    on_gpu = torch.cuda.is_available()
    own = measurement.kind in ("packed", "label")
    precision = ["base.compute_dtype=float16"]
    if not on_gpu:
        precision = ["base.compute_dtype=float32", "base.device=cpu"]
    return recipe("smollm2" if "smollm2" in measurement.name else "llama2-7b-t4").with_settings(
        [
            *precision,
            "train.num_train_epochs=1",
            f"train.max_steps={STEPS if on_gpu else WARM_UP + 1}",
            f"train.per_device_train_batch_size={measurement.batch}",
            f"train.activation_checkpointing={str(measurement.checkpointing).lower()}",
            f"train.loss={'label' if measurement.kind == 'label' else 'completion'}",
            f"train.packing={str(own).lower()}",
            "train.logging_steps=1",
        ]
    )


def stop_after(trainer: Any, seconds: float) -> None:
    """Let a trainer stop at the first step after `seconds` and the warm-up."""
    from transformers import TrainerCallback

    class TimeLimit(TrainerCallback):
        started = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == WARM_UP:
                self.started = time.monotonic()
            elif state.global_step > WARM_UP and time.monotonic() - self.started > seconds:
                control.should_training_stop = True

    trainer.add_callback(TimeLimit())


def memory() -> dict[str, float]:
    """Return the peak memory in MiB, and on a GPU also what the whole device has in use now."""
    if not torch.cuda.is_available():
        return {"peak_memory_mb": peak_rss_mb()}
    free, total = torch.cuda.mem_get_info()
    return {
        "peak_memory_mb": torch.cuda.max_memory_allocated() / 2**20,
        "reserved_memory_mb": torch.cuda.max_memory_reserved() / 2**20,
        # Includes the CUDA context and a paged optimizer's state, which the limit does not cover.
        "device_memory_mb": (total - free) / 2**20,
    }


def score(base: Path, kind: str) -> dict[str, Any]:
    """Return names/s of Grocer's scorer with several token budgets, or of `generate`."""
    on_gpu = torch.cuda.is_available()
    dtype, device = (torch.float16, "cuda") if on_gpu else (torch.float32, "cpu")
    model = load_nf4(base / "nf4", dtype, device).eval()
    encoder, names, truth = encoded(base)
    if kind == "generate":
        items = {"generate": NAMES // 16 if on_gpu else 8}
        rates = scoring.measure(model, encoder, names, truth, items, TOKEN_BUDGETS[0])
        return {"names_per_second": rates["generate"], **memory()}
    items = {"packed": NAMES if on_gpu else 16}
    by_budget = {
        budget: scoring.measure(model, encoder, names, truth, items, budget)["packed"]
        for budget in TOKEN_BUDGETS
    }
    return {"names_per_second": max(by_budget.values()), "by_budget": by_budget, **memory()}


def guided_choice(base: Path, memory_gib: float) -> dict[str, Any]:
    """Return names/s of vLLM with guided choice among the labels, on the base quantized to NF4."""
    if find_spec("vllm") is None:
        return {"skipped": "vllm is not installed"}
    vllm, parameters = (importlib.import_module(name) for name in ("vllm", "vllm.sampling_params"))
    encoder, names, _ = encoded(base)
    choices = [encoder.template.completion(label) for label in encoder.labels]
    if hasattr(parameters, "StructuredOutputsParams"):
        guided = {"structured_outputs": parameters.StructuredOutputsParams(choice=choices)}
    else:  # releases before 0.11
        guided = {"guided_decoding": parameters.GuidedDecodingParams(choice=choices)}
    total = torch.cuda.get_device_properties(0).total_memory
    model = vllm.LLM(
        model=str(base),
        quantization="bitsandbytes",
        dtype="float16",
        max_model_len=512,
        enable_prefix_caching=True,
        gpu_memory_utilization=min(0.9, memory_gib * 2**30 / total),
    )
    longest = max(map(len, encoder.label_tokens))
    sampling = vllm.SamplingParams(temperature=0.0, max_tokens=longest, **guided)
    prompts = [
        {"prompt_token_ids": [*encoder.prefix, *suffix]} for suffix in encoder.suffixes(names)
    ]
    model.generate(prompts[:64], sampling)
    started = time.perf_counter()
    model.generate(prompts, sampling)
    return {"names_per_second": len(names) / (time.perf_counter() - started)}


def encoded(base: Path) -> tuple[Encoder, list[str], list[int]]:
    """Return the encoder of the 7b's recipe, and names with the index of their label."""
    names, departments, labels = bases.catalogue()
    encoder = Encoder(load_tokenizer(base), template(recipe("llama2-7b-t4").prompt), labels)
    return encoder, names[:NAMES], [labels.index(each) for each in departments[:NAMES]]
