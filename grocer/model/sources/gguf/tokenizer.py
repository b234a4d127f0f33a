"""Tokenizers from the metadata of GGUF files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from grocer.errors import ModelError
from grocer.model.sources.gguf.file import GgufFile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CONTROL, _USER_DEFINED = 3, 4  # token types
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# How a byte-level tokenizer of this name splits text before it merges: GPT-2's rules, after each
# digit on its own for SmolLM, and the pattern of Llama 3.
_LLAMA3 = "llama-bpe"
_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL = ("gpt-2", "smollm", _LLAMA3)


def make_tokenizer(file: GgufFile) -> PreTrainedTokenizerFast:
    """Return the tokenizer that a GGUF file describes, with its chat template.

    Raises:
        ModelError: an unknown kind of tokenizer, or incomplete or inconsistent metadata.
    """
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    try:
        metadata = {
            key.removeprefix("tokenizer."): value
            for key, value in file.metadata.items()
            if key.startswith("tokenizer.")
        }
        tokens = metadata["ggml.tokens"]
        backend = _backend(metadata, tokens)
        ids = {
            name: metadata[f"ggml.{key}_token_id"]
            for name, key in _SPECIAL.items()
            if f"ggml.{key}_token_id" in metadata
        }
        special = {f"{name}_token": tokens[number] for name, number in ids.items()}
        kinds = list(zip(tokens, metadata.get("ggml.token_type", ()), strict=False))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelError(
            f"{file.path}: cannot read the tokenizer: {type(error).__name__} {error}; use another "
            "GGUF file of this model, or its safetensors"
        ) from error
    for kind, is_special in ((_CONTROL, True), (_USER_DEFINED, False)):
        names = [token for token, other in kinds if other == kind]
        backend.add_tokens([AddedToken(t, special=is_special, normalized=False) for t in names])
    _add_bos(backend, metadata, ids.get("bos"), special.get("bos_token"))
    if backend.get_vocab() != {token: number for number, token in enumerate(tokens)}:
        raise ModelError(f"{file.path}: the vocabulary has tokens twice; it cannot be converted")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=metadata.get("chat_template"),
        clean_up_tokenization_spaces=False,
        **special,
    )


def _backend(metadata: Mapping[str, Any], tokens: list[str]) -> Any:
    """Return the BPE tokenizer of the vocabulary, without special tokens."""
    kind, split = metadata["ggml.model"], metadata.get("ggml.pre")
    if kind == "llama":
        return _sentencepiece(metadata, tokens)
    if kind == "gpt2" and split in _BYTE_LEVEL:
        return _byte_level(metadata, tokens, split)
    raise ValueError(f"kind {kind!r} with pre-tokenizer {split!r} is not supported")


def _byte_level(metadata: Mapping[str, Any], tokens: list[str], split: str) -> Any:
    """Return a BPE tokenizer of bytes, as of GPT-2, SmolLM and Llama 3."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in metadata["ggml.merges"]]
    for merge in merges:
        if len(merge) != 2 or not {*merge, "".join(merge)} <= vocabulary.keys():
            raise ValueError(f"merge {' '.join(merge)!r} is not of two tokens into a third")
    is_llama3 = split == _LLAMA3
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=is_llama3))
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not is_llama3)]
    if split == "smollm":
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    elif is_llama3:
        steps.insert(0, pre_tokenizers.Split(Regex(_LLAMA3_PATTERN), "isolated"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str]) -> Any:
    """Return a SentencePiece BPE tokenizer with byte fallback, as of Llama 2."""
    from transformers import LlamaTokenizer
    from transformers.tokenization_utils_base import generate_merges

    vocabulary = {token: number for number, token in enumerate(tokens)}
    # GGUF has a score for each token instead of merges; the highest is merged first.
    scores = dict(zip(tokens, metadata["ggml.scores"], strict=True))
    return LlamaTokenizer(
        vocab=vocabulary,
        merges=generate_merges(vocabulary, scores),
        unk_token=tokens[metadata["ggml.unknown_token_id"]],
        bos_token=tokens[metadata["ggml.bos_token_id"]],
        eos_token=tokens[metadata["ggml.eos_token_id"]],
        add_prefix_space=metadata.get("ggml.add_space_prefix", True),
    ).backend_tokenizer


def _add_bos(
    backend: Any, metadata: Mapping[str, Any], number: int | None, token: str | None
) -> None:
    """Put the BOS token before every text if the file says so; SentencePiece files by default."""
    from tokenizers import processors

    if metadata.get("ggml.add_bos_token", metadata["ggml.model"] == "llama") and token:
        backend.post_processor = processors.TemplateProcessing(
            single=[token, "$A"], pair=[token, "$A", token, "$B"], special_tokens=[(token, number)]
        )
    elif metadata["ggml.model"] == "llama":
        backend.post_processor = processors.TemplateProcessing(single=["$A"], pair=["$A", "$B"])
