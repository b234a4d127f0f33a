"""Protects the trie: its probabilities are those of constrained decoding, whatever the labels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.errors import ConfigError
from grocer.model.label_trie import LabelTrie, label_trie

EOS = 2


def by_steps(sequence: tuple[int, ...], sequences: list[tuple[int, ...]], seed: int) -> float:
    """Log-probability of a sequence when each token is chosen among those that may follow."""
    total = 0.0
    for depth, token in enumerate(sequence):
        path = sequence[:depth]
        allowed = {other[depth] for other in sequences if other[:depth] == path}
        scores = {one: logit(path, one, seed) for one in allowed}
        total += scores[token] - np.logaddexp.reduce(list(scores.values()))
    return total


def logit(path: tuple[int, ...], token: int, seed: int) -> float:
    """A logit that depends on all that came before it."""
    return float(np.random.default_rng(abs(hash((seed, path, token)))).normal(scale=3))


def edge_logits(trie: LabelTrie, seed: int, stem: tuple[int, ...] = ()) -> np.ndarray:
    """[1, edges]: what a model would say at the trie's branching nodes, behind `stem`."""

    def path(index: int) -> tuple[int, ...]:
        return stem if index < 0 else (*path(trie.parents[index]), trie.tokens[index])

    pairs = zip(trie.edge_node, trie.edge_token, strict=True)
    return np.array([[logit(path(trie.nodes[node]), int(token), seed) for node, token in pairs]])


label_sets = st.lists(
    st.lists(st.integers(3, 6), min_size=1, max_size=4).map(lambda body: (*body, EOS)),
    min_size=2,
    max_size=12,
    unique=True,
)


@given(label_sets, st.integers(0, 99))
def test_equals_step_by_step_decoding(sequences: list[tuple[int, ...]], seed: int) -> None:
    trie = label_trie([str(i) for i in range(len(sequences))], sequences)
    found = trie.log_probabilities(edge_logits(trie, seed))[0]
    expected = [by_steps(sequence, sequences, seed) for sequence in sequences]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-12)


@given(label_sets)
def test_asks_for_no_token_that_decides_nothing(sequences: list[tuple[int, ...]]) -> None:
    trie = label_trie([str(i) for i in range(len(sequences))], sequences)
    assert len(trie.nodes) <= len(sequences) - 1
    # Every token that is computed is a branching node or lies above one.
    above = trie.ancestors()
    inner = [node for node in trie.nodes if node >= 0]
    assert all(above[inner, index].any() for index in range(len(trie.tokens)))
    assert all(parent < index for index, parent in enumerate(trie.parents))


def test_distinct_first_tokens_cost_nothing() -> None:
    trie = label_trie(["a", "b", "c"], [(5, EOS), (6, 7, EOS), (8, EOS)])
    assert (trie.tokens, trie.nodes) == ((), (-1,))


def test_a_label_that_begins_another_branches_at_its_end() -> None:
    trie = label_trie(["dairy", "dairy eggs"], [(5, EOS), (5, 6, EOS)])
    assert (trie.tokens, trie.parents, trie.depths, trie.nodes) == ((5,), (-1,), (1,), (0,))
    assert trie.edge_token.tolist() == [EOS, 6]


def test_ancestors_follow_the_branches() -> None:
    trie = label_trie(["a", "b", "c", "d"], [(3, 4, 5, EOS), (3, 4, 6, EOS), (7, 8), (7, 9)])
    assert trie.tokens == (3, 4, 7)
    assert trie.ancestors().tolist() == [
        [True, False, False],
        [True, True, False],
        [False, False, True],
    ]


def test_500_labels_work_and_501_do_not() -> None:
    codes = list(itertools.product(range(3, 11), repeat=3))
    assert len(label_trie([str(c) for c in codes[:500]], codes[:500]).labels) == 500
    limit = (
        "501 labels: expected 2 to 500; "
        "choose another catalogue.label or check the department column"
    )
    with pytest.raises(ConfigError, match=f"^{limit}$"):
        label_trie([str(c) for c in codes[:501]], codes[:501])


@pytest.mark.parametrize(
    ("labels", "sequences", "message"),
    [
        (["a"], [(3, EOS)], "1 labels"),
        (
            ["a", "b"],
            [(3, EOS), (3, EOS)],
            "^labels 'a' and 'b' have the same tokens; rename one of them$",
        ),
        (
            ["a", "b"],
            [(3,), (3, 4)],
            "^label 'a' is a token prefix of label 'b'; rename one of them$",
        ),
        (["a", "b"], [(3, 4, 5, 6), (3, 4)], "'b' is a token prefix of label 'a'"),
        (["a", "b"], [(3, EOS), ()], "'b' has no tokens"),
    ],
)
def test_refuses_labels_that_cannot_be_told_apart(
    labels: list[str], sequences: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        label_trie(labels, sequences)
