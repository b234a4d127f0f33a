"""Memory estimate of a training run, from the base's configuration, before weights are loaded.

Memory is that of one GPU or process: the sum of 4-bit weights, adapter with gradients and optimizer
state, and the activations of the largest batch, plus a reserve for fragmentation. With `train.fsdp`
weights, adapter and state are divided by the number of processes, once the base is loaded. Time is
the number of floating-point operations divided by the measured speed of a matrix product. Both are
estimates; the run reports the measured values.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from grocer.config.run import RunConfig
from grocer.errors import ModelError, TrainingError
from grocer.model.base import read_config
from grocer.model.device import available_memory, measure_speed
from grocer.progress import say
from grocer.training.dataset import TrainingSet

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_MIB, _GIB = 2**20, 2**30
# NF4 with double quantization: 4 bits per weight, and 8 + 32/256 bits per block of 64 weights.
_SCALE_BYTES = (8 + 32 / 256) / 8 / 64
_NF4_BYTES = 0.5 + _SCALE_BYTES
# CUDA context and workspaces; on a CPU the process with its libraries and compiled kernels.
_PROCESS_BYTES = {"cuda": 0.8 * _GIB, "cpu": 1.3 * _GIB}
_RESERVE, _LOADING_RESERVE = 1.25, 1.1
# Decoder layers that FSDP holds whole: the current and the next one, and a buffer.
_GATHERED_LAYERS = 3
# Share of a matrix product's speed that remains with dequantization, attention and short rows, as
# measured on two CPU cores.
_EFFICIENCY = 0.3


@dataclass(frozen=True)
class ModelShape:
    """Size of a base: its configuration and numbers of weights."""

    config: PretrainedConfig
    quantized: int  # weights in 4-bit layers
    other: int  # all other weights
    adapter: int  # weights of the adapter
    inputs: int  # sum of in_features of one layer's adapted modules, whose inputs backward needs


@dataclass(frozen=True)
class Estimate:
    """Memory in bytes by use, tokens of the whole run, and floating-point operations."""

    process: float  # the process without the model
    base: float  # the whole base, which each process loads
    weights: float
    adapter: float
    activations: float
    tokens: int
    operations: float

    @property
    def memory(self) -> float:
        """Bytes in total, with a reserve."""
        training = _RESERVE * (self.weights + self.adapter + self.activations)
        return max(self.process + training, self.loading)

    @property
    def loading(self) -> float:
        """Bytes in total while the base is loaded, before FSDP shards it."""
        return self.process + _LOADING_RESERVE * self.base


def read_shape(directory: Path, rank: int, targets: str | tuple[str, ...]) -> ModelShape:
    """Read the shape of a base from its configuration; `rank` and `targets` are of the adapter."""
    from transformers import AutoModelForCausalLM

    config = read_config(directory)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = [
        (name.rpartition(".")[2], module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    tuned = [module for name, module in linear if targets == "all-linear" or name in targets]
    if not tuned:
        raise ModelError(
            f"lora.target_modules={targets}: the base has no such layers; it has "
            f"{', '.join(sorted({name for name, _ in linear}))}"
        )
    quantized = sum(module.weight.numel() for _, module in linear)
    return ModelShape(
        config=config,
        quantized=quantized,
        other=sum(parameter.numel() for parameter in model.parameters()) - quantized,
        adapter=rank * sum(module.in_features + module.out_features for module in tuned),
        inputs=sum(module.in_features for module in tuned) // config.num_hidden_layers,
    )


def estimate(
    shape: ModelShape, examples: TrainingSet, config: RunConfig, device: str, dtype: torch.dtype
) -> Estimate:
    """Estimate memory and operations of training on `examples`."""
    settings, base, width = config.train, shape.config, dtype.itemsize
    batch, prefix = settings.per_device_train_batch_size, len(examples.prefix)
    products = len(examples.sizes)
    batches = -(-products // batch)
    # Tokens of the largest batch: three standard deviations above the mean.
    suffixes = batch * examples.sizes.mean() + 3 * examples.sizes.std() * np.sqrt(batch)
    if settings.packing:
        largest = longest = int(prefix + suffixes)
        tokens, rows = int(batches * prefix + examples.sizes.sum()), 1
        logits = batch * examples.completion_tokens
    else:
        longest = examples.longest
        largest, rows = batch * longest, batch
        tokens = int((prefix + (examples.sizes.mean() + examples.sizes.max()) / 2) * products)
        logits = batch * longest
    hidden, intermediate = base.hidden_size, getattr(base, "intermediate_size", None)
    widths = 12 * hidden + 4 * (intermediate or 4 * hidden)
    layer = largest * (4 * shape.inputs + width * widths)
    attention = 2 * rows * base.num_attention_heads * longest**2 * width
    checkpointing = settings.activation_checkpointing
    if checkpointing:
        # Each layer keeps its input; one layer at a time is recomputed.
        activations = base.num_hidden_layers * largest * hidden * width + layer + attention
    else:
        activations = base.num_hidden_layers * (layer + attention)
    optimizer_bytes = 2 if settings.optim.endswith("8bit") else 8
    epochs = float(settings.num_train_epochs)
    if settings.max_steps >= 0:
        epochs = settings.max_steps * settings.gradient_accumulation_steps / batches
    total = tokens * epochs
    whole = shape.quantized * _NF4_BYTES + shape.other * width
    shards = settings.processes if settings.fsdp else 1
    return Estimate(
        process=_PROCESS_BYTES[device],
        base=whole,
        weights=_sharded_weights(shape, width, shards) if settings.fsdp else whole,
        adapter=shape.adapter * (4 + 4 + optimizer_bytes) / shards,
        activations=activations + logits * base.vocab_size * 12,
        tokens=int(total),
        operations=2.0 * total * shape.quantized * (3 if checkpointing else 2),
    )


def _sharded_weights(shape: ModelShape, width: int, processes: int) -> float:
    """Return the bytes of the base that one process holds while FSDP computes a layer.

    The scales of the 4-bit weights are not parameters, so each process has all of them. Embedding
    and head are gathered whole, and layers with their adapter in the compute type.
    """
    own = (shape.quantized * 0.5 + shape.other * width) / processes
    layers: int = shape.config.num_hidden_layers
    layer = (shape.quantized * 0.5 + shape.adapter * width) / layers
    gathered = shape.other * width + _GATHERED_LAYERS * layer
    return own + shape.quantized * _SCALE_BYTES + gathered


def require_memory(needed: Estimate, config: RunConfig, device: str, dtype: torch.dtype) -> None:
    """Log the estimate; raise a TrainingError if it does not fit and `train.force` is off."""
    available = available_memory(device)
    if device == "cpu":  # the processes of a machine share its memory
        available /= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    speed = _EFFICIENCY * measure_speed(device, dtype) * int(os.environ.get("WORLD_SIZE", "1"))
    minutes = needed.operations / speed / 60
    unit, fsdp = "GPU" if device == "cuda" else "machine", config.train.fsdp
    per = f" per {'GPU' if device == 'cuda' else 'process'}" if fsdp else ""
    loading = f"{_format(needed.loading)} while the base is loaded, then " if fsdp else ""
    memory = (
        f"{_format(needed.memory)}{per} ({loading}base "
        f"{_format(needed.weights)}, adapter and optimizer {_format(needed.adapter)}, activations "
        f"{_format(needed.activations)})"
    )
    duration = "under a minute" if minutes < 1 else f"about {minutes:,.0f} min"
    tokens = f"{needed.tokens:,} tokens"
    say("train", f"estimate: {memory} of {_format(available)} · {tokens} · {duration}")
    if needed.memory <= available:
        return
    if config.train.force:
        say("train", "the estimate exceeds the available memory; continuing with train.force=true")
        return
    if needed.loading > available:
        advice = f"the 4-bit base does not fit: use a {unit} with more memory or a smaller base,"
    else:
        advice = (
            "lower train.per_device_train_batch_size (and raise "
            "train.gradient_accumulation_steps) or lora.r, keep train.activation_checkpointing="
            f"true, use {'more' if fsdp else 'several'} processes with train.fsdp=true,"
        )
    raise TrainingError(
        f"training needs about {memory}, but the {unit} has {_format(available)}; {advice} or set "
        "train.force=true to start anyway"
    )


def _format(size: float) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= 0.1 * _GIB else f"{size / _MIB:.1f} MiB"
