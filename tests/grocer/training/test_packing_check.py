"""Bases on which packed products get other probabilities than single ones are rejected."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    MptForCausalLM,
)

from grocer.errors import ModelError
from grocer.model.base import load_nf4, load_tokenizer
from grocer.model.prompts.tokenization import Encoder
from grocer.training.packing_check import require_exact_packing
from tests.fixtures.tiny_model import AISLES, encoder

NAMES = ["Milk", "Oat Milk", "Golden Banana Bread with Walnuts and Oats"]
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.2,
}


def build(model: type[Any], config: type[Any], coder: Encoder, **shape: Any) -> Any:
    torch.manual_seed(0)
    return model(config(vocab_size=len(coder.tokenizer), **shape)).eval()


@pytest.mark.parametrize("form", ["chat", "llama2-chat", "short"])
def test_llama_passes(base: Path, form: str) -> None:
    model = load_nf4(base, torch.float32, "cpu").train()
    require_exact_packing(model, encoder(load_tokenizer(base), form), NAMES)
    assert model.training


def test_two_levels_of_labels_pass(base: Path) -> None:
    model = load_nf4(base, torch.float32, "cpu")
    require_exact_packing(model, encoder(load_tokenizer(base), aisles=AISLES), NAMES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_of_half_precision_passes(coder: Encoder, dtype: torch.dtype) -> None:
    model = build(LlamaForCausalLM, LlamaConfig, coder, **SHAPE).to(dtype)
    require_exact_packing(model, coder, NAMES)


def test_learned_positions_pass(coder: Encoder) -> None:
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
    require_exact_packing(build(GPT2LMHeadModel, GPT2Config, coder, **shape), coder, NAMES)


def test_sliding_window_must_hold_the_longest_possible_prompt(coder: Encoder) -> None:
    def check(window: int) -> None:
        model = build(MistralForCausalLM, MistralConfig, coder, **SHAPE, sliding_window=window)
        require_exact_packing(model, coder, NAMES)

    others = len(coder.prefix) + len(coder.close) + max(map(len, coder.label_tokens))
    longest = others + coder.template.max_name_tokens
    check(longest)
    with pytest.raises(ModelError, match=r"sliding window .* lower prompt\.max_name_tokens"):
        check(longest - 1)
    with pytest.raises(ModelError, match=r"relative difference 0\.\d+, limit 0\.001"):
        check(others // 2)


@pytest.mark.parametrize(
    ("model", "config", "shape"),
    [
        (BloomForCausalLM, BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
        (MptForCausalLM, MptConfig, {"d_model": 32, "n_layers": 2, "n_heads": 2}),
        (MambaForCausalLM, MambaConfig, {"hidden_size": 32, "num_hidden_layers": 2}),
    ],
)
def test_other_kinds_of_positions_are_rejected(
    coder: Encoder, model: type[Any], config: type[Any], shape: dict[str, int]
) -> None:
    with pytest.raises(ModelError, match=r"packed products.*choose another base\.source"):
        require_exact_packing(build(model, config, coder, **shape), coder, NAMES)


def test_prompt_longer_than_the_positions_is_rejected(coder: Encoder) -> None:
    shape = {**SHAPE, "max_position_embeddings": 100}
    with pytest.raises(ModelError, match=r"positions for 100 .* lower prompt\.max_name_tokens"):
        require_exact_packing(build(LlamaForCausalLM, LlamaConfig, coder, **shape), coder, NAMES)
