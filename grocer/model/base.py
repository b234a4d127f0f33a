"""Load base models (4-bit NF4), their tokenizers, and adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from grocer.errors import ModelError
from grocer.model.device import available_memory

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

_DEQUANTIZED_MEMORY = 4
"""Minimum memory of a machine relative to the weights that are dequantized at once."""


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a base or an adapter; ModelError if it is not readable."""
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(
            directory, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{directory} has no readable tokenizer: {_reason(error)}") from error
    return tokenizer


def read_config(directory: Path) -> PretrainedConfig:
    """Read the configuration of a causal language model; ModelError if it is not one."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{directory}: cannot read config.json: {_reason(error)}") from error
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"{directory} has model type {config.model_type}, not a causal language model"
        )
    return config


def _reason(error: Exception) -> str:
    """Return the message of an error of transformers, which suggests to run the model's code."""
    if "trust_remote_code" in str(error):
        return "the model requires custom code, which is never run; choose another base.source"
    return str(error)


def load_nf4(
    directory: Path,
    dtype: torch.dtype,
    device: str,
    *,
    dequantize: bool | None = None,
    shardable: bool = False,
) -> PreTrainedModel:
    """Load a causal language model with 4-bit linear layers (NF4, double quantization).

    Args:
        dequantize: whether to keep the values of the 4-bit weights in `dtype`, which is faster
            than to dequantize them in every forward pass and gives the same results; by default
            on a CPU with at least `_DEQUANTIZED_MEMORY` times the memory that this takes.
        shardable: store the 4-bit weights in tensors of `dtype` instead of uint8, so that FSDP
            shards them; they are not dequantized.

    Raises:
        ModelError: not a causal language model, or weights are missing or unreadable.
    """
    import bitsandbytes

    model = _load_weights(directory, dtype, device, dtype if shardable else torch.uint8)
    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    if dequantize is None and not shardable:
        size = sum(layer.in_features * layer.out_features for layer in layers) * dtype.itemsize
        dequantize = device == "cpu" and available_memory(device) > _DEQUANTIZED_MEMORY * size
    if dequantize:
        dense: PreTrainedModel = model.dequantize()
        # transformers leaves this flag, by which TRL and PEFT recognise 4-bit layers.
        dense.is_loaded_in_4bit = False
        return dense
    for module in layers:
        # On CPUs with AVX512_BF16 a forward pass in eval mode repacks the weights in place,
        # which silently corrupts all later gradients.
        module.support_avx512bf16_for_cpu = False
    return model


def _load_weights(
    directory: Path, dtype: torch.dtype, device: str, storage: torch.dtype
) -> PreTrainedModel:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = read_config(directory)
    config.transformers_weights = None  # can name files that are not in the base's digest
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            device_map={"": device},
            trust_remote_code=False,
            use_safetensors=True,  # never unpickle pytorch_model.bin
            output_loading_info=True,
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
                bnb_4bit_quant_storage=storage,
            ),
        )
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read the weights in {directory}: {error}") from error
    # transformers initializes missing weights at random and only warns.
    if loaded["missing_keys"]:
        missing = sorted(loaded["missing_keys"])
        raise ModelError(
            f"{directory}: weights are missing, for example {missing[0]} ({len(missing)} in "
            "total); the download is incomplete, or config.json belongs to another model"
        )
    return model


def load_adapter(model: PreTrainedModel, directory: Path) -> PreTrainedModel | PeftModel:
    """Return a base with an adapter, for inference.

    The adapter is added to the weights of a base that is not in 4 bits: the results are equal up
    to rounding, and a forward pass is about twice as fast.

    Raises:
        ModelError: the adapter does not fit the base.
    """
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(model, str(directory)).eval()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"the adapter in {directory} does not fit its base: {error}") from error
    if getattr(model, "is_loaded_in_4bit", False):
        return adapted
    return adapted.merge_and_unload()
