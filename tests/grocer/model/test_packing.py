"""Protects packing: many products in one sequence give what each gives alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from grocer.model import base as models
from grocer.model.packing import (
    IGNORE_INDEX,
    additive_mask,
    block_diagonal_mask,
    pack,
    token_batches,
)
from grocer.training.trainer import PackingCollator
from tests.fixtures.tiny_model import LABELS, NAMES, encoder

PRODUCTS = list(zip(NAMES[::7], LABELS * 2, strict=True))


def test_a_product_sees_the_prefix_and_itself() -> None:
    packed = pack((7, 8), [(1, 2), (3,)])
    assert packed.input_ids.tolist() == [[7, 8, 1, 2, 3]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert packed.last_tokens.tolist() == [3, 4]
    assert block_diagonal_mask(packed.segments).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_the_mask_is_added_not_chosen() -> None:
    mask = additive_mask(torch.tensor([[True, False]]), torch.float16)
    assert mask.tolist() == [[[[0.0, torch.finfo(torch.float16).min]]]]
    assert mask.dtype is torch.float16


def test_masks_are_made_where_the_segments_are() -> None:
    """`meta` stands for a GPU: another device than the default one, on every machine."""
    allowed = block_diagonal_mask(torch.tensor([-1, 0, 1], device="meta"))
    assert allowed.device.type == "meta"
    assert additive_mask(allowed, torch.float32).device.type == "meta"


@given(lengths=st.lists(st.integers(1, 50)), budget=st.integers(1, 100))
def test_batches_keep_order_and_budget(lengths: list[int], budget: int) -> None:
    found = list(token_batches(lengths, budget))
    assert [i for batch in found for i in batch] == list(range(len(lengths)))
    assert all(len(b) == 1 or sum(lengths[i] for i in b) <= budget for b in found)
    assert all(found), "none is empty"
    assert all(sum(lengths[i] for i in b) + lengths[b.stop] > budget for b in found[:-1])


def examples(base: Path) -> tuple[tuple[int, ...], list[dict[str, list[int]]]]:
    """The shared prefix, and each product's ids as the collator takes them."""
    coder = encoder(models.load_tokenizer(base))
    tails = coder.suffixes([name for name, _ in PRODUCTS])
    answers = dict(zip(coder.labels, coder.label_tokens, strict=True))
    rows = [
        {"suffix": tail, "completion": list(answers[label])}
        for tail, (_, label) in zip(tails, PRODUCTS, strict=True)
    ]
    return coder.prefix, rows


def adapted(base: Path, kind: str, attention: str, checkpointing: bool) -> Any:
    """A model in training mode whose adapter is noise."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    if kind == "nf4":
        model = models.load_nf4(base, torch.float32, "cpu")
        model.set_attn_implementation(attention)
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
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("kind", "attention", "checkpointing"),
    [
        ("fp32", "sdpa", False),
        ("fp32", "eager", True),
        ("nf4", "sdpa", True),
        ("nf4", "eager", False),
    ],
)
def test_losses_gradients_and_probabilities_equal_one_by_one(
    base: Path, kind: str, attention: str, checkpointing: bool
) -> None:
    model = adapted(base, kind, attention, checkpointing)
    prefix, rows = examples(base)
    losses, logs = [], []
    for row in rows:
        ids = torch.tensor([[*prefix, *row["suffix"], *row["completion"]]])
        size = len(row["completion"])
        logits = model(input_ids=ids, use_cache=False).logits[0, -size - 1 : -1]
        losses.append(cross_entropy(logits, ids[0, -size:], reduction="sum"))
        logs.append(logits.log_softmax(-1))
    expected = gradients(model, torch.stack(losses).sum())

    batch = PackingCollator(prefix)(rows)
    targets = batch["labels"][0, 1:]
    logits = model(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=additive_mask(block_diagonal_mask(batch["segments"][0]), torch.float32),
        use_cache=False,
    ).logits[0, :-1]
    kept = targets != IGNORE_INDEX
    each = cross_entropy(logits[kept], targets[kept], reduction="none")
    sizes = [len(row["completion"]) for row in rows]
    found = torch.stack([part.sum() for part in each.split(sizes)])

    assert relative(found.detach(), torch.stack(losses).detach()) < 1e-5
    assert relative(gradients(model, found.sum()), expected) < 1e-5
    difference = logits[kept].log_softmax(-1).exp() - torch.cat(logs).exp()
    assert difference.abs().max() < 1e-5


def test_a_boolean_mask_is_silently_wrong_with_eager_attention(base: Path) -> None:
    """Why the mask is additive: should this ever fail, a boolean one has become safe."""
    model = adapted(base, "fp32", "eager", checkpointing=False).eval()
    prefix, rows = examples(base)
    batch = PackingCollator(prefix)(rows)
    allowed = block_diagonal_mask(batch["segments"][0])
    ids = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"]}
    with torch.no_grad():
        right = model(**ids, attention_mask=additive_mask(allowed, torch.float32)).logits
        wrong = model(**ids, attention_mask=allowed[None, None]).logits
    assert (right - wrong).abs().max() > 1e-2


def test_only_answers_are_learnt(base: Path) -> None:
    prefix, rows = examples(base)
    labels = PackingCollator(prefix)(rows)["labels"][0].tolist()
    learnt = [token for token in labels if token != IGNORE_INDEX]
    assert learnt == [token for row in rows for token in row["completion"]]
