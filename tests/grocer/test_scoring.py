"""Protects the scorer: packed, cached, one pass a batch, and still exactly constrained decoding."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from grocer import models
from grocer.errors import ModelError
from grocer.scoring import Scorer
from tests.tinies import LABELS, NAMES, encoder, random_adapter, scorer

AISLES = tuple(
    f"{first} {second} {third}"
    for first, second, third in itertools.product(
        ("frozen", "fresh", "canned"), ("fruit", "meat"), ("", "snacks", "snack bars")
    )
)


def decoded(scorer: Scorer, name: str) -> list[float]:
    """Log-probabilities by decoding one token at a time, each sequence on its own."""
    coder = scorer.encoder
    prompt = [*coder.prefix, *coder.tails([name])[0]]
    following: dict[tuple[int, ...], set[int]] = {}
    for answer in coder.answers:
        for depth, token in enumerate(answer):
            following.setdefault(answer[:depth], set()).add(token)
    totals = []
    for answer in coder.answers:
        total = 0.0
        for depth, token in enumerate(answer):
            allowed = sorted(following[answer[:depth]])
            with torch.inference_mode():
                ids = torch.tensor([[*prompt, *answer[:depth]]])
                logits = scorer.model(input_ids=ids).logits[0, -1].double()
            total += float(logits[allowed].log_softmax(0)[allowed.index(token)])
        totals.append(total)
    return totals


@pytest.fixture(scope="module", params=[LABELS, tuple(" ".join(a.split()) for a in AISLES)])
def scored(request: pytest.FixtureRequest, base: Path) -> Scorer:
    return scorer(base, request.param, token_budget=160)


def test_equals_step_by_step_decoding(scored: Scorer) -> None:
    names = NAMES[::12]
    expected = np.array([decoded(scored, name) for name in names])
    found = scored.log_probabilities(names)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_rows_sum_to_one(scored: Scorer) -> None:
    rows = scored.probabilities(["", "é" * 300, *NAMES])
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-12)
    assert (rows > 0).all()


def test_company_and_budget_change_nothing(scored: Scorer) -> None:
    together = scored.log_probabilities(NAMES)
    alone = np.concatenate([scored.log_probabilities([name]) for name in NAMES])
    np.testing.assert_allclose(together, alone, atol=2e-5)
    backwards = scored.log_probabilities(NAMES[::-1])[::-1]
    np.testing.assert_allclose(together, backwards, atol=2e-5)


def test_no_pass_exceeds_the_budget(scored: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    forward = scored._forward
    monkeypatch.setattr(
        scored,
        "_forward",
        lambda packed, *rest: sizes.append(packed.input_ids.shape[1]) or forward(packed, *rest),
    )
    scored.log_probabilities(NAMES)
    assert len(sizes) > 1
    assert max(sizes) <= scored.token_budget


def test_temperature_softens_without_reordering(base: Path) -> None:
    sharp, soft = scorer(base), scorer(base, temperature=4.0)
    before, after = sharp.probabilities(NAMES), soft.probabilities(NAMES)
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert after.max() < before.max()


def test_untuned_is_the_base_and_comes_back(base: Path) -> None:
    tuned = scorer(base)
    before = tuned.log_probabilities(NAMES[:4])
    with tuned.untuned():
        bare = tuned.log_probabilities(NAMES[:4])
    plain = models.load_nf4(base, torch.float32, "cpu")
    alone = Scorer(plain, encoder(models.load_tokenizer(base)))
    np.testing.assert_allclose(bare, alone.log_probabilities(NAMES[:4]), atol=1e-6)
    assert np.abs(before - bare).max() > 1e-3
    np.testing.assert_array_equal(before, tuned.log_probabilities(NAMES[:4]))


def test_a_logit_that_is_no_number_names_its_item(base: Path) -> None:
    broken = scorer(base)
    known = {token for tail in broken.encoder.tails(["Oat Milk", "Ж"]) for token in tail}
    token = next(t for t in broken.encoder.tails(["Crunchy Crème"])[0] if t not in known)
    with torch.no_grad():
        broken.model.get_input_embeddings().weight[token] = float("nan")
    names = ["Oat Milk", "Crunchy Crème"]
    with pytest.raises(ModelError, match=r"item 1 \('Crunchy Crème'\)"):
        broken.log_probabilities(names)
    assert np.isfinite(broken.log_probabilities(["Oat Milk"])).all()


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    random_adapter(base).save_pretrained(tmp_path / "adapter")
    (tmp_path / "base.json").write_text('{"source": "tiny", "revision": null, "digest": "0"}')
    with pytest.raises(ModelError, match="not the base that the adapter was trained on"):
        Scorer.load(tmp_path, base=base)


def test_progress_counts_to_the_end(base: Path) -> None:
    calls: list[tuple[int, int]] = []
    scorer(base, token_budget=64).log_probabilities(NAMES, lambda *at: calls.append(at))
    assert calls[-1] == (len(NAMES), len(NAMES))
    assert len(calls) > 1
