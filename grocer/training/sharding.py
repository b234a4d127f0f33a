"""Sharding over all processes with FSDP2, for bases that do not fit one GPU.

Each process loads the whole 4-bit base, then keeps a part of its weights, of the adapter and of the
optimizer's state. The weights of a decoder layer are gathered while it computes.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments


def enable(accelerator: Any, arguments: TrainingArguments) -> None:
    """Configure FSDP2 as accelerate does on GPUs; it ignores the plugin on CPUs.

    Gradients are reduced in float32. The weights are gathered in the compute dtype, in which the
    4-bit weights are stored too: another dtype would convert their bits.
    """
    compute = torch.float16 if arguments.fp16 else torch.bfloat16 if arguments.bf16 else None
    plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)
    plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=compute, reduce_dtype=torch.float32
    )
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = DistributedType.FSDP
    # A new AcceleratorState copies the type from here.
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def save_adapter(model: Any, directory: Path) -> None:
    """Write the adapter in PEFT's format; sharded weights are gathered from all processes.

    All processes must call this, each with another directory.
    """
    weights = {
        name: parameter.full_tensor().cpu() if isinstance(parameter, DTensor) else parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    model.save_pretrained(directory, state_dict=weights)
