"""Protects the scorer: packed, cached, one pass a batch, and still exactly constrained decoding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from grocer.errors import ModelError
from grocer.inference.scorer import Scorer
from grocer.model import base as models
from tests.fixtures.tiny_model import AISLES as AISLES_OF
from tests.fixtures.tiny_model import LABELS, NAMES, encoder, random_adapter, scorer

AISLES = tuple(
    f"{first} {second} {third}"
    for first, second, third in itertools.product(
        ("frozen", "fresh", "canned"), ("fruit", "meat"), ("", "snacks", "snack bars")
    )
)


def decoded(
    scorer: Scorer, name: str, answers: Sequence[tuple[int, ...]] | None = None
) -> list[float]:
    """Log-probabilities by decoding one token at a time, each sequence on its own."""
    coder = scorer.encoder
    answers = coder.label_tokens if answers is None else answers
    prompt = [*coder.prefix, *coder.suffixes([name])[0]]
    following: dict[tuple[int, ...], set[int]] = {}
    for answer in answers:
        for depth, token in enumerate(answer):
            following.setdefault(answer[:depth], set()).add(token)
    totals = []
    for answer in answers:
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


@pytest.fixture(scope="module")
def levelled(base: Path) -> Scorer:
    return scorer(base, aisles=AISLES_OF, token_budget=160, aisle_temperature=2.0)


def test_aisles_are_step_by_step_decoding_of_the_whole_answer(levelled: Scorer) -> None:
    """Department and aisle together, against one token at a time over every answer there is."""
    coder = levelled.encoder
    places = [place for place, each in enumerate(coder.completions) for _ in each.aisles]
    whole = [each.tokens(aisle) for each in coder.completions for aisle in each.aisles]
    everything = [*whole, coder.label_tokens[LABELS.index("bakery")]]  # which has no aisles
    for name in NAMES[::12]:
        expected = decoded(levelled, name, everything)
        departments = levelled.log_probabilities([name])[0]
        for place, label in enumerate(LABELS):
            own = [i for i, at in enumerate(places) if at == place]
            found = levelled.leaf_log_probabilities([name], [place])[0]
            assert np.isneginf(np.delete(found, own)).all()
            np.testing.assert_allclose(
                departments[place] + found[own], [expected[i] for i in own], atol=1e-5
            )
            if label == "bakery":
                assert departments[place] == pytest.approx(expected[-1], abs=1e-5)


def test_the_aisles_of_the_answer_sum_to_its_probability(levelled: Scorer) -> None:
    scores = levelled.predict(NAMES)
    labels, aisles = scores.probabilities, scores.leaf_probabilities
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, atol=1e-12)
    assert aisles.shape[1] == len(levelled.leaves) == 7
    for row, (label, shares) in enumerate(zip(labels.argmax(axis=1), aisles, strict=True)):
        inside = np.array([department == LABELS[label] for department, _ in levelled.leaves])
        assert shares[inside].sum() == pytest.approx(labels[row, label] if inside.any() else 0)
        assert not shares[~inside].any()


def test_one_more_pass_serves_products_of_several_departments(
    levelled: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list(zip(NAMES[:4], (0, 1, 2, 3), strict=True))
    alone = [levelled.leaf_log_probabilities([name], [place])[0] for name, place in asked]
    passes = []
    forward = levelled.prefix_cached._forward
    monkeypatch.setattr(
        levelled.prefix_cached,
        "_forward",
        lambda packed, *rest: passes.append(packed) or forward(packed, *rest),
    )
    together = levelled.leaf_log_probabilities(NAMES[:4], [0, 1, 2, 3])
    assert len(passes) == 1  # and nothing was asked for those with one aisle or none
    assert len(passes[0].last_tokens) == 2
    np.testing.assert_allclose(together, alone, atol=1e-5)
    passes.clear()
    levelled.predict(NAMES[:4])
    assert len(passes) == 2


def test_a_logit_that_is_no_number_in_the_second_pass_names_its_item(base: Path) -> None:
    broken = scorer(base, aisles=AISLES_OF)
    coder = broken.encoder
    pasta, produce = coder.completions[2:]
    tails = [token for tail in coder.suffixes(NAMES[:2]) for token in tail]
    elsewhere = {*coder.prefix, *tails, *pasta.prefix, *pasta.trie.tokens}
    token = next(t for t in (*produce.prefix, *produce.trie.tokens) if t not in elsewhere)
    with torch.no_grad():
        broken.model.get_input_embeddings().weight[token] = float("nan")
    with pytest.raises(ModelError, match=rf"item 1 \('{NAMES[1]}'\)"):
        broken.leaf_log_probabilities(NAMES[:2], [2, 3])
    assert np.isfinite(broken.log_probabilities(NAMES[:2])).all()


def test_a_label_set_of_500_aisles_is_scored(base: Path) -> None:
    many = {label: tuple(f"{i} {label}" for i in range(125)) for label in LABELS}
    wide = scorer(base, aisles=many)
    scores = wide.predict(["Oat Milk"])
    assert scores.leaf_probabilities.shape == (1, 500)
    assert scores.leaf_probabilities.sum() == pytest.approx(scores.confidence[0])


def test_rows_sum_to_one(scored: Scorer) -> None:
    rows = scored.predict(["", "é" * 300, *NAMES]).probabilities
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
    forward = scored.prefix_cached._forward
    monkeypatch.setattr(
        scored.prefix_cached,
        "_forward",
        lambda packed, *rest: sizes.append(packed.input_ids.shape[1]) or forward(packed, *rest),
    )
    scored.log_probabilities(NAMES)
    assert len(sizes) > 1
    assert max(sizes) <= scored.prefix_cached.token_budget


def test_temperature_softens_without_reordering(base: Path) -> None:
    sharp, soft = scorer(base), scorer(base, temperature=4.0)
    before, after = sharp.predict(NAMES).probabilities, soft.predict(NAMES).probabilities
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert after.max() < before.max()


def test_untuned_is_the_base_and_comes_back(base: Path) -> None:
    tuned = scorer(base)
    before = tuned.log_probabilities(NAMES[:4])
    with tuned.without_adapter():
        bare = tuned.log_probabilities(NAMES[:4])
    plain = models.load_nf4(base, torch.float32, "cpu")
    alone = Scorer(plain, encoder(models.load_tokenizer(base)))
    np.testing.assert_allclose(bare, alone.log_probabilities(NAMES[:4]), atol=1e-6)
    assert np.abs(before - bare).max() > 1e-3
    np.testing.assert_array_equal(before, tuned.log_probabilities(NAMES[:4]))


def test_a_logit_that_is_no_number_names_its_item(base: Path) -> None:
    broken = scorer(base)
    known = {token for tail in broken.encoder.suffixes(["Oat Milk", "Ж"]) for token in tail}
    token = next(t for t in broken.encoder.suffixes(["Crunchy Crème"])[0] if t not in known)
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
