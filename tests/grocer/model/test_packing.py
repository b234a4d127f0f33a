"""Sequence packing: losses, gradients and probabilities equal those of separate sequences."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from grocer.model.attention import pack_layout, packed_forward, use_packed_attention
from grocer.model.base import load_nf4, load_tokenizer
from grocer.model.packing import IGNORE_INDEX, pack, token_batches
from grocer.training.trainer import PackingCollator
from tests.fixtures.tiny_model import LABELS, NAMES, encoder

PRODUCTS = list(zip(NAMES[::7], LABELS * 2, strict=True))


def test_positions_restart_after_the_prefix() -> None:
    packed = pack((7, 8), [(1, 2), (3,)])
    assert packed.input_ids.tolist() == [[7, 8, 1, 2, 3]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert packed.sizes.tolist() == [2, 1]
    assert packed.last_tokens.tolist() == [3, 4]


@given(lengths=st.lists(st.integers(1, 50)), budget=st.integers(1, 100))
def test_token_batches_keep_order_and_budget(lengths: list[int], budget: int) -> None:
    batches = list(token_batches(lengths, budget))
    assert [i for batch in batches for i in batch] == list(range(len(lengths)))
    assert all(len(b) == 1 or sum(lengths[i] for i in b) <= budget for b in batches)
    assert all(batches), "a batch is empty"
    assert all(sum(lengths[i] for i in b) + lengths[b.stop] > budget for b in batches[:-1])


def collator_rows(base: Path) -> tuple[tuple[int, ...], list[dict[str, list[int]]]]:
    """Return the shared prefix, and the products as the collator expects them."""
    coder = encoder(load_tokenizer(base))
    suffixes = coder.suffixes([name for name, _ in PRODUCTS])
    completions = dict(zip(coder.labels, coder.label_tokens, strict=True))
    rows = [
        {"suffix": suffix, "completion": list(completions[label])}
        for suffix, (_, label) in zip(suffixes, PRODUCTS, strict=True)
    ]
    return coder.prefix, rows


def make_model(base: Path, kind: str, attention: str, checkpointing: bool) -> Any:
    """Return a model in training mode with a random adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(0)
    if kind == "nf4":
        model = load_nf4(base, torch.float32, "cpu", dequantize=False)
        model.set_attn_implementation(attention)
    elif kind == "qwen3":
        config = Qwen3Config(
            vocab_size=len(load_tokenizer(base)),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            tie_word_embeddings=True,
        )
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    else:
        model = AutoModelForCausalLM.from_pretrained(base, attn_implementation=attention)
    if checkpointing:
        model.activation_checkpointing_enable()
        model.enable_input_require_grads()
    settings = LoraConfig(
        r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    return get_peft_model(model, settings).float().train()


def gradients(model: Any, loss: torch.Tensor) -> torch.Tensor:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, trainable)])


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("kind", "attention", "checkpointing"),
    [
        ("fp32", "sdpa", False),
        ("fp32", "eager", True),
        ("nf4", "sdpa", True),
        ("qwen3", "sdpa", False),
        ("nf4", "eager", False),
    ],
)
def test_packed_equals_separate_sequences(
    base: Path, kind: str, attention: str, checkpointing: bool
) -> None:
    model = make_model(base, kind, attention, checkpointing)
    prefix, rows = collator_rows(base)
    losses, logs = [], []
    for row in rows:
        ids = torch.tensor([[*prefix, *row["suffix"], *row["completion"]]])
        size = len(row["completion"])
        logits = model(input_ids=ids, use_cache=False).logits[0, -size - 1 : -1]
        losses.append(cross_entropy(logits, ids[0, -size:], reduction="sum"))
        logs.append(logits.log_softmax(-1))
    expected = gradients(model, torch.stack(losses).sum())

    batch = PackingCollator(prefix)(rows)
    targets = batch["labels"][0]
    use_packed_attention(model)
    layout = pack_layout(batch["sizes"], len(prefix))
    every = torch.arange(len(targets))
    logits = packed_forward(model, batch, layout, every, use_cache=False).logits[0]
    kept = targets != IGNORE_INDEX
    each = cross_entropy(logits[kept], targets[kept], reduction="none")
    sizes = [len(row["completion"]) for row in rows]
    packed = torch.stack([part.sum() for part in each.split(sizes)])

    assert relative_error(packed.detach(), torch.stack(losses).detach()) < 1e-5
    assert relative_error(gradients(model, packed.sum()), expected) < 1e-5
    difference = logits[kept].log_softmax(-1).exp() - torch.cat(logs).exp()
    assert difference.abs().max() < 1e-5
