"""The scorer: packed and cached scoring equals stepwise constrained decoding."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from grocer.config.recipes import tiny
from grocer.config.stages import BaseConfig
from grocer.errors import ModelError
from grocer.inference.scorer import Scorer, _matching_base
from grocer.model.base import load_nf4
from grocer.model.packing import Pack
from grocer.model.sources.find import BaseReference, base_digest, find_base
from tests.fixtures.artifacts import write_model
from tests.fixtures.gguf_files import write_gguf
from tests.fixtures.tiny_model import AISLES, LABELS, NAMES, random_adapter, scorer

# 18 labels with common prefixes, some of which start others.
PREFIX_LABELS = tuple(
    " ".join(words).strip()
    for words in itertools.product(
        ("frozen", "fresh", "canned"), ("fruit", "meat"), ("", "snacks", "snack bars")
    )
)


def decode_stepwise(
    scorer: Scorer, name: str, completions: Sequence[tuple[int, ...]]
) -> list[float]:
    """Return log-probabilities of completions, computed with one forward pass per token."""
    coder = scorer.encoder
    prompt = [*coder.prefix, *coder.suffixes([name])[0]]
    children: dict[tuple[int, ...], set[int]] = {}
    for completion in completions:
        for depth, token in enumerate(completion):
            children.setdefault(completion[:depth], set()).add(token)
    totals = []
    for completion in completions:
        total = 0.0
        for depth, token in enumerate(completion):
            allowed = sorted(children[completion[:depth]])
            with torch.inference_mode():
                ids = torch.tensor([[*prompt, *completion[:depth]]])
                logits = scorer.model(input_ids=ids).logits[0, -1].double()
            total += float(logits[allowed].log_softmax(0)[allowed.index(token)])
        totals.append(total)
    return totals


def label_logs(scorer: Scorer, names: Sequence[str]) -> np.ndarray:
    return scorer.log_probabilities(scorer.encode(names))


def leaf_logs(scorer: Scorer, names: Sequence[str], labels: Sequence[int]) -> np.ndarray:
    return scorer.leaf_log_probabilities(scorer.encode(names), np.array(labels))


def record_passes(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> list[Pack]:
    """Return a list to which each forward pass appends its pack."""
    passes: list[Pack] = []
    forward = scorer.prefix_cached._forward
    monkeypatch.setattr(
        scorer.prefix_cached,
        "_forward",
        lambda packed, *rest: passes.append(packed) or forward(packed, *rest),
    )
    return passes


@pytest.fixture(scope="module", params=[LABELS, PREFIX_LABELS])
def flat(request: pytest.FixtureRequest, base: Path) -> Scorer:
    return scorer(base, request.param, token_budget=160)


@pytest.fixture(scope="module")
def two_levels(base: Path) -> Scorer:
    return scorer(base, aisles=AISLES, token_budget=160)


def test_label_probabilities_equal_stepwise_decoding(flat: Scorer) -> None:
    names = NAMES[::12]
    expected = [decode_stepwise(flat, name, flat.encoder.label_tokens) for name in names]
    np.testing.assert_allclose(label_logs(flat, names), expected, rtol=1e-5, atol=1e-5)


def test_aisle_probabilities_equal_stepwise_decoding(two_levels: Scorer) -> None:
    """Department and aisle together, against the decoding of every whole completion."""
    coder = two_levels.encoder
    labels = [index for index, each in enumerate(coder.completions) for _ in each.aisles]
    completions = [each.tokens(aisle) for each in coder.completions for aisle in each.aisles]
    bakery = LABELS.index("bakery")  # has no aisles
    for name in NAMES[::12]:
        expected = decode_stepwise(two_levels, name, [*completions, coder.label_tokens[bakery]])
        departments = label_logs(two_levels, [name])[0]
        assert departments[bakery] == pytest.approx(expected[-1], abs=1e-5)
        for index in range(len(LABELS)):
            inside = [column for column, label in enumerate(labels) if label == index]
            logs = leaf_logs(two_levels, [name], [index])[0]
            assert np.isneginf(np.delete(logs, inside)).all()
            np.testing.assert_allclose(
                departments[index] + logs[inside], [expected[i] for i in inside], atol=1e-5
            )


def test_aisles_of_all_departments_share_one_pass(
    two_levels: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    separate = [leaf_logs(two_levels, [NAMES[i]], [i])[0] for i in range(4)]
    passes = record_passes(two_levels, monkeypatch)
    together = leaf_logs(two_levels, NAMES[:4], [0, 1, 2, 3])
    # Departments with fewer than two aisles need no pass.
    assert [len(packed.last_tokens) for packed in passes] == [2]
    np.testing.assert_allclose(together, separate, atol=1e-5)


def test_500_aisles_are_scored(base: Path) -> None:
    aisles = {label: tuple(f"{i} {label}" for i in range(125)) for label in LABELS}
    logs = leaf_logs(scorer(base, aisles=aisles), ["Oat Milk"], [0])
    assert logs.shape == (1, 500)
    assert np.exp(logs).sum() == pytest.approx(1.0)


def test_probabilities_sum_to_one_and_do_not_depend_on_the_batch(flat: Scorer) -> None:
    names = ["", "é" * 300, *NAMES]
    together = label_logs(flat, names)
    assert np.isfinite(together).all()
    np.testing.assert_allclose(np.exp(together).sum(axis=1), 1.0, atol=1e-6)
    separate = np.concatenate([label_logs(flat, [name]) for name in names])
    np.testing.assert_allclose(together, separate, atol=2e-5)
    np.testing.assert_allclose(together, label_logs(flat, names[::-1])[::-1], atol=2e-5)


def test_passes_stay_within_the_token_budget(flat: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = record_passes(flat, monkeypatch)
    label_logs(flat, NAMES)
    assert len(passes) > 1
    assert max(packed.input_ids.shape[1] for packed in passes) <= flat.prefix_cached.token_budget


def test_the_base_is_loaded_with_and_without_the_adapter(base: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", tiny(), base=base)
    coder = Scorer.load(model).encoder
    tuned = Scorer(random_adapter(base), coder)
    plain = Scorer(load_nf4(base, torch.float32, "cpu"), coder)
    for with_adapter, expected in ((True, tuned), (False, plain)):
        loaded = label_logs(Scorer.load(model, with_adapter=with_adapter), NAMES[:4])
        np.testing.assert_allclose(loaded, label_logs(expected, NAMES[:4]), atol=1e-5)
    assert np.abs(label_logs(tuned, NAMES[:4]) - label_logs(plain, NAMES[:4])).max() > 1e-3


def test_directory_added_to_a_bundle_is_not_loaded(base: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", tiny(), base=base)
    expected = label_logs(Scorer.load(model), NAMES[:4])
    for file in (model / "adapter").iterdir():  # as in a bundle; the directory stays
        file.rename(model / file.name)
    assert (label_logs(Scorer.load(model), NAMES[:4]) == expected).all()


def test_nan_logit_names_the_product(base: Path) -> None:
    broken = scorer(base)
    suffixes = broken.encoder.suffixes(["Oat Milk", "Ж"])
    (suffix,) = broken.encoder.suffixes(["Crunchy Crème"])
    token = next(t for t in suffix if not any(t in other for other in suffixes))
    with torch.no_grad():
        broken.model.get_input_embeddings().weight[token] = float("nan")
    with pytest.raises(ModelError, match=r"item 1 \('Crunchy Crème'\)"):
        label_logs(broken, ["Oat Milk", "Crunchy Crème"])
    assert np.isfinite(label_logs(broken, ["Oat Milk"])).all()


def test_nan_logit_in_the_second_pass_names_the_product(base: Path) -> None:
    broken = scorer(base, aisles=AISLES)
    coder = broken.encoder
    pasta, produce = coder.completions[2:]
    suffixes = [token for suffix in coder.suffixes(NAMES[:2]) for token in suffix]
    other = {*coder.prefix, *suffixes, *pasta.prefix, *pasta.trie.tokens}
    token = next(t for t in (*produce.prefix, *produce.trie.tokens) if t not in other)
    with torch.no_grad():
        broken.model.get_input_embeddings().weight[token] = float("nan")
    with pytest.raises(ModelError, match=rf"item 1 \('{NAMES[1]}'\)"):
        leaf_logs(broken, NAMES[:2], [2, 3])
    assert np.isfinite(label_logs(broken, NAMES[:2])).all()


def test_adapter_of_another_base_is_rejected(base: Path, tmp_path: Path) -> None:
    random_adapter(base).save_pretrained(tmp_path / "adapter")
    (tmp_path / "base.json").write_text('{"source": "tiny", "digest": "0"}')
    with pytest.raises(ModelError, match="not the base that the adapter was trained on"):
        Scorer.load(tmp_path, base=base)


def test_base_can_be_given_as_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROCER_CACHE", str(tmp_path))
    file = write_gguf(tmp_path / "model.gguf")
    _, reference = find_base(BaseConfig(source=str(file)))
    directory = _matching_base(BaseReference("tiny", reference.digest), file)
    assert base_digest(directory) == reference.digest


def test_progress_is_reported_after_each_pass(base: Path) -> None:
    calls: list[int] = []
    small = scorer(base, token_budget=64)
    small.log_probabilities(small.encode(NAMES), calls.append)
    assert calls[-1] == len(NAMES)
    assert len(calls) > 1
