"""The tiny base: cached, reproducible, with a tokenizer that behaves like Llama's."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.distributed import mixin

from grocer.config.stages import PromptConfig
from grocer.model import tiny_llama
from grocer.model.base import load_tokenizer, read_config
from grocer.model.prompts.template import template
from grocer.model.sources.find import base_digest
from grocer.model.tiny_llama import make_tokenizer, tiny_base
from tests.fixtures.tiny_model import LABELS, NAMES, SHAPE

CHAT = template(PromptConfig())
TOKENIZER = make_tokenizer(NAMES, CHAT, LABELS, SHAPE.vocabulary)


def test_tiny_base_is_a_llama(base: Path) -> None:
    assert read_config(base).model_type == "llama"
    assert read_config(base).hidden_size == SHAPE.hidden


def test_same_arguments_give_the_same_base_from_the_cache(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROCER_CACHE", str(tmp_path))
    directory = tiny_base(NAMES, CHAT, LABELS, SHAPE)
    assert directory.is_relative_to(tmp_path)
    assert base_digest(directory) == base_digest(base)
    written = (directory / "model.safetensors").stat().st_mtime_ns
    assert tiny_base(NAMES, CHAT, LABELS, SHAPE) == directory
    assert (directory / "model.safetensors").stat().st_mtime_ns == written
    other = SHAPE.model_copy(update={"steps": 1})
    assert tiny_base(NAMES, CHAT, LABELS, other) != directory


def test_each_node_of_a_distributed_training_writes_its_base(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the second node, transformers' save_pretrained writes nothing."""
    monkeypatch.setattr(mixin, "_is_torch_distributed_initialized", lambda: True)
    monkeypatch.setattr(mixin, "_get_torch_distributed_rank", lambda: 1)
    monkeypatch.setenv("GROCER_CACHE", str(tmp_path))
    assert base_digest(tiny_base(NAMES, CHAT, LABELS, SHAPE)) == base_digest(base)


def test_concurrent_runs_share_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = SHAPE.model_copy(update={"steps": 1})
    pretrain = tiny_llama._pretrain

    def pretrain_twice(*arguments: Any) -> Any:
        """Let a second run finish the same base while this one is still training."""
        monkeypatch.setattr(tiny_llama, "_pretrain", pretrain)
        tiny_base(NAMES, CHAT, LABELS, shape)
        return pretrain(*arguments)

    monkeypatch.setenv("GROCER_CACHE", str(tmp_path))
    monkeypatch.setattr(tiny_llama, "_pretrain", pretrain_twice)
    assert base_digest(tiny_base(NAMES, CHAT, LABELS, shape))


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40))
def test_decoding_inverts_encoding(text: str) -> None:
    ids = TOKENIZER(text, split_special_tokens=True)["input_ids"]
    assert ids[0] == TOKENIZER.bos_token_id
    # Metaspace encodes a space as "▁".
    assert TOKENIZER.decode(ids[1:]) == text.replace("▁", " ").removeprefix(" ")


def test_saved_tokenizer_is_identical(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    for text in (*NAMES, "<s>[INST] x [/INST]</s>", "Crème 米 🫐"):
        assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
