"""Bases and adapters: found, checked, loaded as NF4."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from grocer.config.stages import BaseConfig
from grocer.errors import ModelError
from grocer.io.atomic import file_digest, json_digest, read_json, whole_directory
from grocer.io.storage import Storage

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

_WEIGHTS = ("config.json", "tokenizer.json", "*.safetensors")


@dataclass(frozen=True)
class BaseReference:
    """Which base an adapter belongs to, as `base.json` records it."""

    source: str
    revision: str | None
    digest: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> BaseReference:
        return cls(**read_json(path))


def base_digest(directory: Path) -> str:
    """SHA-256 over a base's configuration, tokenizer and weights.

    Raises:
        ModelError: no `config.json`, or no safetensors weights.
    """
    files = sorted(path for pattern in _WEIGHTS for path in directory.glob(pattern))
    names = [path.name for path in files]
    if "config.json" not in names:
        raise ModelError(f"{directory} is no model: it has no config.json")
    if not any(name.endswith(".safetensors") for name in names):
        raise ModelError(f"{directory} has no *.safetensors; other weight formats are not read")
    return json_digest({path.name: _weights_digest(path) for path in files})


def _weights_digest(path: Path) -> str:
    """A file's SHA-256; the Hub's cache names large files by it, which saves reading them."""
    blob = path.resolve().name
    is_hub_blob = path.is_symlink() and len(blob) == 64 and set(blob) <= set("0123456789abcdef")
    return blob if is_hub_blob else file_digest(path)


def find_base(base: BaseConfig) -> tuple[Path, BaseReference]:
    """A local directory with the base that the configuration names, fetched where need be.

    Raises:
        ModelError: it does not exist, is gated and there is no token, or is no model.
    """
    source = base.source
    if "://" in source:
        directory = _from_object_store(source)
    elif Path(source).is_dir():
        directory = Path(source)
    elif source.startswith((".", "/")) or source.count("/") != 1:
        raise ModelError(f"base.source={source}: no such directory, and no Hub id (owner/name)")
    else:
        directory = _from_hub(base)
    reference = BaseReference(source, base.revision, base_digest(directory))
    return directory, reference


def _from_hub(base: BaseConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"base.source={base.source}"
    try:
        found = snapshot_download(
            base.source,
            revision=base.revision,
            token=os.environ.get(base.token_env),
            allow_patterns=["*.json", "*.safetensors", "tokenizer.model"],
        )
    except GatedRepoError as error:
        raise ModelError(
            f"{where} is gated: accept its licence on the Hub, then put a token into "
            f"the environment variable {base.token_env} (on a cluster: from a Secret)"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{where} has no revision {base.revision}") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{where}: no such model on the Hub, or it is private and {base.token_env} holds "
            "no token that may read it"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{where}: the Hub can't be reached and the model is not in the cache; "
            "give a local directory instead"
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(f"{where}: the Hub answered {error}; try again") from error
    return Path(found)


def _from_object_store(uri: str) -> Path:
    """Copy a base from an object store into the cache, once for each version of its files."""
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
        with whole_directory(target) as part:
            for name in versions:
                storage.get(part / Path(name).name, name)
    return target


def cache_directory() -> Path:
    """Where bases are kept between runs: `GROCER_CACHE`, or the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "grocer"
    return Path(os.environ.get("GROCER_CACHE", default))


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer beside a base or an adapter.

    Raises:
        ModelError: there is none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(directory)
    except (OSError, ValueError) as error:
        raise ModelError(f"{directory} has no tokenizer that can be read: {error}") from error
    return tokenizer


def read_config(directory: Path) -> PretrainedConfig:
    """The configuration of a causal language model.

    Raises:
        ModelError: the directory holds none.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(directory)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{directory}: config.json can't be read: {error}") from error
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"{directory} holds a {config.model_type}, which is no causal language model"
        )
    return config


def load_nf4(directory: Path, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """A causal language model with its linear layers as NF4, double quantised.

    Raises:
        ModelError: the directory holds no causal language model, or not all of its weights.
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
        raise ModelError(f"the weights in {directory} can't be read: {error}") from error
    # Otherwise they would be made at random, with a warning only.
    if loaded["missing_keys"]:
        missing = sorted(loaded["missing_keys"])
        raise ModelError(
            f"{directory} lacks {len(missing)} of its weights, {missing[0]} for one: the "
            "download is not whole, or config.json is of another model"
        )
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            # On CPUs with AVX512_BF16 an evaluating forward would repack the weights in place
            # and every gradient after it would be wrong, silently.
            module.support_avx512bf16_for_cpu = False
    quantised: PreTrainedModel = model
    return quantised


def load_adapter(model: PreTrainedModel, directory: Path) -> PeftModel:
    """Put an adapter on a loaded base, for inference.

    Raises:
        ModelError: the adapter does not fit the base.
    """
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(directory)).eval()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"the adapter in {directory} does not fit its base: {error}") from error


def copy_base(source: Path, target: Path) -> None:
    """Copy a base's files, flat."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file():
            shutil.copyfile(path, target / path.name)
