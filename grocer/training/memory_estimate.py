"""What a training run will take, from the base's shape alone: before any weight is loaded.

Memory is a sum of what is known to be held (4-bit weights, adapter, gradients, optimizer,
activations of the largest pass) with a reserve for fragments; time is arithmetic over a speed
that is measured on the spot. Both are estimates: the run reports what it really took.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grocer.config.run import RunConfig
from grocer.errors import ModelError, TrainingError
from grocer.model import base as models
from grocer.progress import say
from grocer.training.dataset import TrainingSet

_MIB, _GIB = 2**20, 2**30
# NF4 with double quantisation: 4 bits, and 8 + 32/256 bits for each 64 weights.
_NF4_BYTES = 0.5 + (8 + 32 / 256) / 8 / 64
# CUDA's context and workspaces; on a CPU the process with its libraries.
_PROCESS = 0.8 * _GIB
_RESERVE = 1.25
# Of a plain matrix product's speed, which dequantising, attention and short rows leave.
_EFFICIENCY = 0.4


@dataclass(frozen=True)
class Shape:
    """A base's size: weights in 4-bit layers, other weights, and widths."""

    quantised: int
    other: int
    adapter: int
    inputs: int
    """Sum of a layer's linear input widths, which the adapter's products keep."""
    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int


@dataclass(frozen=True)
class Estimate:
    """Bytes by what holds them, tokens of all passes, and floating point operations."""

    weights: float
    adapter: float
    activations: float
    tokens: int
    operations: float

    @property
    def memory(self) -> float:
        """Bytes in all, with a reserve."""
        return _PROCESS + _RESERVE * (self.weights + self.adapter + self.activations)


def shape_of(directory: Path, rank: int, targets: str | tuple[str, ...]) -> Shape:
    """Read a base's shape from its configuration.

    Raises:
        ModelError: no causal language model, or `lora.target_modules` names none of its layers.
    """
    from transformers import AutoModelForCausalLM

    config = models.read_config(directory)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    tuned = {
        name: module
        for name, module in linear.items()
        if targets == "all-linear" or name.rpartition(".")[2] in targets
    }
    if not tuned:
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise ModelError(
            f"lora.target_modules={targets}: the base has no such layers; it has {', '.join(known)}"
        )
    quantised = sum(module.weight.numel() for module in linear.values())
    layers = config.num_hidden_layers
    return Shape(
        quantised=quantised,
        other=sum(parameter.numel() for parameter in model.parameters()) - quantised,
        adapter=rank * sum(m.in_features + m.out_features for m in tuned.values()),
        inputs=sum(module.in_features for module in tuned.values()) // layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", 4 * config.hidden_size),
        layers=layers,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
    )


def estimate(
    shape: Shape, examples: TrainingSet, config: RunConfig, dtype: torch.dtype
) -> Estimate:
    """What training on `examples` takes."""
    settings, width = config.train, dtype.itemsize
    batch, prefix = settings.per_device_train_batch_size, len(examples.prefix)
    products = len(examples.sizes)
    passes = -(-products // batch)
    # A batch's tokens at their likely most: three standard deviations above the mean.
    tails = batch * examples.sizes.mean() + 3 * examples.sizes.std() * np.sqrt(batch)
    if settings.packing:
        largest, longest = int(prefix + tails), int(prefix + tails)
        tokens, rows = int(passes * prefix + examples.sizes.sum()), 1
        logits = batch * examples.answer_tokens
    else:
        longest = examples.longest
        largest, rows = batch * longest, batch
        tokens = int((prefix + (examples.sizes.mean() + examples.sizes.max()) / 2) * products)
        logits = batch * longest
    layer = largest * (4 * shape.inputs + width * (12 * shape.hidden + 4 * shape.intermediate))
    attention = 2 * rows * shape.heads * longest**2 * width
    held = largest * shape.hidden * width
    checkpointing = settings.activation_checkpointing
    activations = (
        (shape.layers * held + layer + attention)
        if checkpointing
        else shape.layers * (layer + attention)
    )
    states = 2 if settings.optim.endswith("8bit") else 8
    total = tokens * _epochs(config, passes)
    return Estimate(
        weights=shape.quantised * _NF4_BYTES + shape.other * width,
        adapter=shape.adapter * (4 + 4 + states),
        activations=activations + logits * shape.vocabulary * 12,
        tokens=int(total),
        operations=2.0 * total * shape.quantised * (3 if checkpointing else 2),
    )


def _epochs(config: RunConfig, passes: int) -> float:
    """Passes over the data: by epochs, or as many as `train.max_steps` makes."""
    if config.train.max_steps < 0:
        return config.train.num_train_epochs
    return config.train.max_steps * config.train.gradient_accumulation_steps / passes


def require_room(found: Estimate, config: RunConfig, device: str, dtype: torch.dtype) -> None:
    """Say what the run will take, and refuse one that can't fit.

    Raises:
        TrainingError: it needs more memory than there is, and `train.force` is off.
    """
    there = memory_of(device)
    minutes = found.operations / (_EFFICIENCY * speed_of(device, dtype)) / 60
    needed = (
        f"{_size(found.memory)} (base {_size(found.weights)}, adapter and optimizer "
        f"{_size(found.adapter)}, activations {_size(found.activations)})"
    )
    say(
        "train",
        f"estimate: {needed} of {_size(there)} · {found.tokens:,} tokens · "
        f"{'under a minute' if minutes < 1 else f'about {minutes:,.0f} min'}",
    )
    if found.memory <= there:
        return
    if config.train.force:
        say("train", "the estimate does not fit; train.force is set, so training starts anyway")
        return
    raise TrainingError(
        f"training needs about {needed}, the {'GPU' if device == 'cuda' else 'machine'} has "
        f"{_size(there)}; lower train.per_device_train_batch_size (and raise "
        "train.gradient_accumulation_steps) or lora.r, keep train.activation_checkpointing=true, "
        "or set train.force=true to try all the same"
    )


def memory_of(device: str) -> float:
    """Bytes that training may use: the GPU's free ones; on a CPU the machine's, or its limit."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return float(total if text == "max" else min(total, int(text)))


def speed_of(device: str, dtype: torch.dtype) -> float:
    """Floating point operations a second of a matrix product here, measured for a moment."""
    size = 4096 if device == "cuda" else 512
    matrix: Any = torch.ones(size, size, dtype=dtype, device=device)
    matrix @ matrix
    _wait(device)
    started, products = time.monotonic(), 0
    while time.monotonic() - started < 0.05:
        matrix @ matrix
        _wait(device)
        products += 1
    return products * 2.0 * size**3 / (time.monotonic() - started)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _size(size: float) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= 0.1 * _GIB else f"{size / _MIB:.1f} MiB"
