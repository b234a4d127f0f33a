"""Find, verify and load base models (4-bit NF4) and adapters."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from grocer.config.stages import HUB_TOKEN, BaseConfig
from grocer.errors import ModelError
from grocer.io.atomic import file_digest, json_digest, output_directory
from grocer.io.storage import Storage
from grocer.model.device import available_memory

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

_DEQUANTIZED_MEMORY = 4
"""Minimum memory of a machine relative to the weights that are dequantized at once."""
_WEIGHTS = ("config.json", "tokenizer.json", "*.safetensors")


@dataclass(frozen=True)
class BaseReference:
    """The base model of an adapter, as recorded in `base.json`."""

    source: str
    revision: str | None
    digest: str


def base_digest(directory: Path) -> str:
    """Return the SHA-256 of a base's configuration, tokenizer and weights (safetensors)."""
    files = sorted(path for pattern in _WEIGHTS for path in directory.glob(pattern))
    if not (directory / "config.json").is_file():
        raise ModelError(f"{directory} is not a model: it has no config.json")
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(
            f"{directory} has no *.safetensors; other weight formats are not supported"
        )
    return json_digest({path.name: _weights_digest(path) for path in files})


def _weights_digest(path: Path) -> str:
    """Return a file's SHA-256; the Hub's cache names large files by it, so they are not read."""
    blob = path.resolve().name
    is_hub_blob = path.is_symlink() and len(blob) == 64 and set(blob) <= set("0123456789abcdef")
    return blob if is_hub_blob else file_digest(path)


def find_base(base: BaseConfig) -> tuple[Path, BaseReference]:
    """Return a local directory with the configured base; download it if necessary.

    Raises:
        ModelError: the base is missing, not accessible, or not a model.
    """
    source = base.source
    if "://" in source:
        directory = _from_object_store(source)
    elif Path(source).is_dir():
        directory = Path(source)
    elif source.startswith((".", "/")) or source.count("/") != 1:
        raise ModelError(f"base.source={source}: no such directory, and not a Hub id (owner/name)")
    else:
        directory = _from_hub(base)
    reference = BaseReference(source, base.revision, base_digest(directory))
    return directory, reference


def _from_hub(base: BaseConfig) -> Path:
    from huggingface_hub import errors, snapshot_download

    # Subclasses come before their bases.
    causes: dict[type[Exception], str] = {
        errors.GatedRepoError: "access is gated: accept its licence on the Hub and set the "
        f"environment variable {HUB_TOKEN} to a token (on a cluster: from a Secret)",
        errors.RevisionNotFoundError: f"the model has no revision {base.revision}",
        errors.RepositoryNotFoundError: "no such model on the Hub, or it is private and "
        f"{HUB_TOKEN} has no token with read access",
        errors.LocalEntryNotFoundError: "cannot reach the Hub, and the model is not in the cache; "
        "use a local directory instead",
    }
    try:
        path = snapshot_download(
            base.source,
            revision=base.revision,
            token=os.environ.get(HUB_TOKEN),
            allow_patterns=["*.json", "*.safetensors", "tokenizer.model"],
        )
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError) as error:
        known = (text for cause, text in causes.items() if isinstance(error, cause))
        reason = next(known, f"Hub request failed: {error}; try again")
        raise ModelError(f"base.source={base.source}: {reason}") from error
    return Path(path)


def _from_object_store(uri: str) -> Path:
    """Download a base from object storage into the cache, once per version of its files."""
    storage = Storage(uri, setting="base.source", error=ModelError)
    versions = {
        name: str(info.get("ETag", info.get("etag", info.get("mtime", info["size"]))))
        for name, info in storage.find().items()
        if Path(name).suffix in (".json", ".safetensors", ".model")
    }
    if not versions:
        raise ModelError(f"base.source={uri}: no model found; check the address")
    target = cache_directory() / "downloads" / json_digest([uri, versions])[:16]
    if not target.is_dir():
        with output_directory(target) as part:
            for name in versions:
                storage.get(part / Path(name).name, name)
    return target


def cache_directory() -> Path:
    """Return the directory of cached bases: `GROCER_CACHE`, or `grocer` in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "grocer"
    return Path(os.environ.get("GROCER_CACHE", default))


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a base or an adapter; ModelError if it is not readable."""
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(directory)
    except (OSError, ValueError) as error:
        raise ModelError(f"{directory} has no readable tokenizer: {error}") from error
    return tokenizer


def read_config(directory: Path) -> PretrainedConfig:
    """Read the configuration of a causal language model; ModelError if it is not one."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(directory)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{directory}: cannot read config.json: {error}") from error
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"{directory} has model type {config.model_type}, not a causal language model"
        )
    return config


def load_nf4(
    directory: Path, dtype: torch.dtype, device: str, *, dequantize: bool | None = None
) -> PreTrainedModel:
    """Load a causal language model with 4-bit linear layers (NF4, double quantization).

    Args:
        dequantize: whether to keep the values of the 4-bit weights in `dtype`, which is faster
            than to dequantize them in every forward pass and gives the same results; by default
            on a CPU with at least `_DEQUANTIZED_MEMORY` times the memory that this takes.

    Raises:
        ModelError: not a causal language model, or weights are missing or unreadable.
    """
    import bitsandbytes
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = read_config(directory)
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            device_map={"": device},
            output_loading_info=True,
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
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
    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    if dequantize is None:
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
    quantized: PreTrainedModel = model
    return quantized


def load_adapter(model: PreTrainedModel, directory: Path) -> PeftModel:
    """Load an adapter onto a base, for inference; ModelError if it does not fit."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(directory)).eval()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"the adapter in {directory} does not fit its base: {error}") from error
