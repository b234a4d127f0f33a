"""Protects the tiny base: made once, the same each time, and with a tokenizer like Llama's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.config.stages import PromptConfig
from grocer.model import base as models
from grocer.model.prompt_template import template
from grocer.model.tiny_llama import make_tokenizer, tiny_base
from tests.fixtures.tiny_model import LABELS, NAMES, SHAPE

CHAT = template(PromptConfig())


def test_it_is_a_llama_that_loads(base: Path) -> None:
    assert models.read_config(base).model_type == "llama"
    assert models.read_config(base).hidden_size == SHAPE.hidden


def test_the_same_arguments_make_the_same_base(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROCER_CACHE", str(tmp_path))
    made = tiny_base(NAMES, CHAT, LABELS, SHAPE)
    assert made.is_relative_to(tmp_path)
    assert models.base_digest(made) == models.base_digest(base)
    before = (made / "model.safetensors").stat().st_mtime_ns
    assert tiny_base(NAMES, CHAT, LABELS, SHAPE) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == before
    other = SHAPE.model_copy(update={"steps": 1})
    assert tiny_base(NAMES, CHAT, LABELS, other) != made


TOKENIZER = make_tokenizer(NAMES, CHAT, LABELS, SHAPE.vocabulary)


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40))
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    ids = TOKENIZER(text, split_special_tokens=True)["input_ids"]
    assert ids[0] == TOKENIZER.bos_token_id
    # Metaspace writes a space as this very character.
    assert TOKENIZER.decode(ids[1:]) == text.replace("▁", " ").removeprefix(" ")


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = models.load_tokenizer(tmp_path)
    for text in (*NAMES, "<s>[INST] x [/INST]</s>", "Crème 米 🫐"):
        assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
