"""Convert GGUF files of Llama models to safetensors."""

import re
from pathlib import Path
from typing import Any

import torch
from gguf.constants import GGMLQuantizationType
from huggingface_hub import split_torch_state_dict_into_shards
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file

from grocer.errors import ModelError
from grocer.io.atomic import write_json
from grocer.model.sources.gguf.file import GgufFile, Tensor, read_gguf
from grocer.model.sources.gguf.tokenizer import make_tokenizer

_SHARD_BYTES = 2 * 1024**3
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Unquantised tensors keep their type.
_TYPES = {GGMLQuantizationType.F32: torch.float32, GGMLQuantizationType.BF16: torch.bfloat16}


def convert(source: Path, directory: Path) -> None:
    """Write the model in a GGUF file into `directory`: configuration, tokenizer, safetensors.

    The same file gives the same bytes on every machine, because adapters record the digest of
    their base. Peak memory is one shard of 2 GiB and one tensor.

    Raises:
        ModelError: not a GGUF file of a plain Llama, truncated, or with an unsupported
            quantisation or tokenizer.
    """
    file = read_gguf(source)
    config = _config(file)
    _require_weights(file, config)
    make_tokenizer(file).save_pretrained(directory)
    # Not by transformers, which adds its version and would change the digest.
    write_json(directory / "config.json", config)
    _save(file, config, directory)


def _config(file: GgufFile) -> dict[str, Any]:
    """Return the `config.json` of a Llama, with the keys of the Hub's models."""
    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        raise ModelError(
            f"{file.path} has architecture {architecture}; only llama can be converted from GGUF, "
            "for others use a directory or a Hub id with safetensors"
        )
    scaling = file.metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ModelError(
            f"{file.path} has scaled rotary embeddings ({scaling}), which cannot be converted; "
            "use a directory or a Hub id with safetensors"
        )

    def number(key: str, default: int | float | None = None) -> int | float:
        value = file.metadata.get(f"llama.{key}", default)
        if not isinstance(value, int | float) or value <= 0:
            raise ModelError(f"{file.path}: llama.{key} is {value!r}, not a positive number")
        return value

    heads, hidden = number("attention.head_count"), number("embedding_length")
    names = {tensor.name: tensor for tensor in file.tensors}
    ids = {
        f"{name}_token_id": file.metadata.get(f"tokenizer.ggml.{key}_token_id")
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float16",
        "hidden_size": hidden,
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv", heads),
        "head_dim": number("rope.dimension_count", hidden // heads),
        "max_position_embeddings": number("context_length"),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "rope_theta": number("rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in names,
        "vocab_size": len(file.metadata.get("tokenizer.ggml.tokens", ())),
        **ids,
    }


def _require_weights(file: GgufFile, config: dict[str, Any]) -> None:
    """Raise a ModelError unless the file has exactly the weights of a Llama of this shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if (layers := config["num_hidden_layers"]) > len(file.tensors):
        raise ModelError(
            f"{file.path}: llama.block_count is {layers:,}, but the file has {len(file.tensors):,} "
            "tensors; download or copy it again"
        )
    try:
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(**config))
    except (RuntimeError, StrictDataclassError) as error:  # the former of sizes that overflow
        raise ModelError(f"{file.path}: not a valid configuration of Llama: {error}") from error
    expected = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    found = {_name(tensor.name): tensor.shape for tensor in file.tensors}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ModelError(
                f"{file.path} is not a plain Llama: {name} has shape {found.get(name, 'none')}, "
                f"expected {expected.get(name, 'none')}; use a directory or a Hub id with "
                "safetensors"
            )


def _name(name: str) -> str:
    """Return the name of a tensor in transformers; an unknown one is returned as it is."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
    if not match or match[2] not in _NAMES:
        return name
    layer = f"model.layers.{match[1]}." if match[1] else ""
    return f"{layer}{_NAMES[match[2]]}.weight"


def _save(file: GgufFile, config: dict[str, Any], directory: Path) -> None:
    """Write the weights as `model.safetensors`, or as shards with an index if they are large."""
    tensors = {_name(tensor.name): tensor for tensor in file.tensors}
    with torch.device("meta"):
        shapes = {name: torch.empty(t.shape, dtype=_dtype(t)) for name, t in tensors.items()}
    split = split_torch_state_dict_into_shards(shapes, max_shard_size=_SHARD_BYTES)
    for path, names in split.filename_to_tensors.items():
        weights = {name: _weight(file, tensors[name], config) for name in names}
        save_file(weights, directory / path, {"format": "pt"})
    if split.is_sharded:
        content = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(directory / "model.safetensors.index.json", content)


def _dtype(tensor: Tensor) -> torch.dtype:
    """Return the type of a converted tensor; quantised ones have scales in float16."""
    return _TYPES.get(tensor.kind, torch.float16)


def _weight(file: GgufFile, tensor: Tensor, config: dict[str, Any]) -> torch.Tensor:
    """Return a tensor as transformers stores it."""
    values = torch.tensor(tensor.values())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(
        tensor.name.split(".")[-2]
    )
    if heads:
        # GGUF interleaves the two halves of each head that rotary embeddings pair.
        rows, columns = values.shape
        pairs = values.view(heads, rows // heads // 2, 2, columns)
        values = pairs.transpose(1, 2).reshape(rows, columns)
    weight = values.to(_dtype(tensor))
    if not torch.isfinite(weight).all():
        raise ModelError(f"{file.path}: tensor {tensor.name} has values that are NaN or Inf")
    return weight
