"""The token trie: its probabilities equal those of stepwise constrained decoding."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.errors import ConfigError
from grocer.model.label_trie import label_trie
from tests.fixtures.decoding import EOS, decode_stepwise, edge_logits

label_sets = st.lists(
    st.lists(st.integers(3, 6), min_size=1, max_size=4).map(lambda body: (*body, EOS)),
    min_size=2,
    max_size=12,
    unique=True,
)


@given(label_sets, st.integers(0, 99))
def test_probabilities_equal_stepwise_decoding(sequences: list[tuple[int, ...]], seed: int) -> None:
    trie = label_trie([str(i) for i in range(len(sequences))], sequences)
    logs = trie.log_probabilities(edge_logits(trie, seed))[0]
    expected = [decode_stepwise(sequence, sequences, seed) for sequence in sequences]
    np.testing.assert_allclose(logs, expected, rtol=1e-12, atol=1e-12)
    assert np.exp(logs).sum() == pytest.approx(1.0, abs=1e-12)


@given(label_sets)
def test_trie_has_only_tokens_that_lead_to_a_branching_node(
    sequences: list[tuple[int, ...]],
) -> None:
    trie = label_trie([str(i) for i in range(len(sequences))], sequences)
    assert len(trie.nodes) <= len(sequences) - 1
    ancestors = trie.ancestors()
    branching = [node for node in trie.nodes if node >= 0]
    assert all(ancestors[branching, index].any() for index in range(len(trie.tokens)))
    assert all(parent < index for index, parent in enumerate(trie.parents))


@given(label_sets)
def test_choices_are_the_branches_on_the_way_to_a_label(sequences: list[tuple[int, ...]]) -> None:
    trie = label_trie([str(i) for i in range(len(sequences))], sequences)
    for label, sequence in enumerate(sequences):
        expected = []
        for offset, token in enumerate(sequence):
            followers = {each[offset] for each in sequences if each[:offset] == sequence[:offset]}
            if len(followers) > 1:
                expected.append((offset, followers, token))
        choices = trie.choices(label)
        assert [(offset, set(tokens), token) for offset, tokens, token in choices] == expected
        assert all(len(set(choice.candidates)) == len(choice.candidates) for choice in choices)


def test_distinct_first_tokens_need_no_extra_token() -> None:
    trie = label_trie(["a", "b", "c"], [(5, EOS), (6, 7, EOS), (8, EOS)])
    assert (trie.tokens, trie.nodes) == ((), (-1,))


def test_label_that_starts_another_branches_at_its_end() -> None:
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


def test_500_labels_are_accepted_and_501_rejected() -> None:
    codes = list(itertools.product(range(3, 11), repeat=3))
    assert len(label_trie([str(c) for c in codes[:500]], codes[:500]).paths.T) == 500
    with pytest.raises(ConfigError, match=r"^501 labels: expected 2 to 500; .* column$"):
        label_trie([str(c) for c in codes[:501]], codes[:501])


@pytest.mark.parametrize(
    ("labels", "sequences", "message"),
    [
        (["a"], [(3, EOS)], "^1 labels: expected 2 to 500"),
        (["a", "b"], [(3, EOS), (3, EOS)], "^labels 'a' and 'b' have the same tokens; .* them$"),
        (["a", "b"], [(3,), (3, 4)], "^label 'a' is a token prefix of label 'b'; .* them$"),
        (["a", "b"], [(3, 4, 5, 6), (3, 4)], "^label 'b' is a token prefix of label 'a'"),
        (["a", "b"], [(3, EOS), ()], "^label 'b' has no tokens; rename it$"),
    ],
)
def test_ambiguous_label_sets_are_rejected(
    labels: list[str], sequences: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        label_trie(labels, sequences)
