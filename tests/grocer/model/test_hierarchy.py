"""The label hierarchy: exact constrained decoding, and aisles within the predicted department."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.errors import ConfigError
from grocer.model.hierarchy import (
    AISLES_FILE,
    completion_labels,
    label_completions,
    leaf_probabilities,
    leaves,
    read_aisles,
)
from grocer.model.label_trie import label_trie
from tests.fixtures.decoding import EOS, decode_stepwise, edge_logits

COLON = 1
token_lists = st.lists(st.integers(3, 6), min_size=1, max_size=3).map(tuple)
catalogues = st.dictionaries(token_lists, st.sets(token_lists, max_size=5), min_size=2, max_size=6)


@given(catalogues, st.integers(0, 99))
def test_department_times_conditional_equals_stepwise_decoding(catalogue, seed):
    sequences = {
        department: [(*department, COLON, *aisle, EOS) for aisle in sorted(aisles)]
        or [(*department, EOS)]
        for department, aisles in catalogue.items()
    }
    every = [sequence for group in sequences.values() for sequence in group]
    completions = {
        department: label_completions(
            [str(aisle) for aisle in sorted(catalogue[department])], group
        )
        for department, group in sequences.items()
    }
    prefixes = [each.prefix for each in completions.values()]
    trie = label_trie([str(department) for department in sequences], prefixes)
    log_departments = trie.log_probabilities(edge_logits(trie, seed))[0]
    for log_department, (department, each) in zip(
        log_departments, completions.items(), strict=True
    ):
        conditional = np.zeros(1)
        if each.trie is not None:
            logits = edge_logits(each.trie, seed, each.prefix)
            conditional = each.trie.log_probabilities(logits)[0]
        expected = [decode_stepwise(sequence, every, seed) for sequence in sequences[department]]
        np.testing.assert_allclose(log_department + conditional, expected, rtol=1e-10, atol=1e-10)


def test_tokens_and_choices_of_an_aisle_follow_the_shared_prefix():
    sequences = [(5, COLON, 3, EOS), (5, COLON, 4, 6, EOS), (5, COLON, 4, 7, EOS)]
    completions = label_completions(["milk", "soft cheese", "hard cheese"], sequences)
    assert completions.prefix == (5, COLON)
    assert completions.tokens("hard cheese") == (5, COLON, 4, 7, EOS)
    assert completions.choices("milk") == [(2, (3, 4), 3)]
    assert completions.choices("hard cheese") == [(2, (3, 4), 4), (3, (6, 7), 7)]
    for unknown in ("yogurt", ""):
        assert (completions.tokens(unknown), completions.choices(unknown)) == ((5, COLON), [])


def test_single_aisle_needs_no_trie_and_no_choice():
    single = label_completions(["bread"], [(7, COLON, 8, EOS)])
    assert (single.prefix, single.trie) == ((7, COLON, 8, EOS), None)
    assert single.tokens("bread") == single.tokens("") == single.prefix
    assert single.choices("bread") == []


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=6),
    st.integers(0, 2**32 - 1),
    st.floats(0.1, 10.0),
)
def test_aisles_sum_to_the_probability_of_the_predicted_department(sizes, seed, temperature):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(len(sizes)), size=8)
    department = np.repeat(np.arange(len(sizes)), sizes)
    logs = random.normal(scale=5, size=(8, len(department)))
    predicted = probabilities.argmax(axis=1)
    conditional = np.where(department[None, :] == predicted[:, None], logs, -np.inf)
    result = leaf_probabilities(probabilities, conditional, temperature)
    for row, label in enumerate(predicted):
        total = result[row, department == label].sum()
        expected = probabilities[row, label] if sizes[label] else 0.0
        assert total == pytest.approx(expected, rel=1e-9)
        assert not result[row, department != label].any()


def test_prefix_is_maximal_if_one_aisle_starts_with_another():
    two = label_completions(["milk", "milk drinks"], [(7, COLON, 8, EOS), (7, COLON, 8, 9, EOS)])
    assert two.prefix == (7, COLON, 8)


def test_aisles_with_the_same_tokens_are_rejected():
    with pytest.raises(ConfigError, match="'milk' and 'Milk' have the same tokens"):
        label_completions(["milk", "Milk"], [(7, COLON, 8, EOS)] * 2)


def test_completion_labels_and_leaves_follow_label_order():
    aisles = {"produce": ("fruit", "herbs")}
    labels = ["bakery", "produce"]
    assert completion_labels(labels, aisles) == ["bakery", "produce: fruit", "produce: herbs"]
    assert leaves(labels, aisles) == (("produce", "fruit"), ("produce", "herbs"))


def test_501_aisles_are_rejected():
    aisles = {"a": [str(i) for i in range(500)]}
    assert len(leaves(["a", "b"], aisles)) == 500
    with pytest.raises(ConfigError, match=r"^501 aisles: .* is 500; set catalogue.* aisles$"):
        leaves(["a", "b"], aisles | {"b": ["1"]})


def test_read_aisles_without_a_file_returns_an_empty_mapping(tmp_path):
    assert read_aisles(tmp_path) == {}
    (tmp_path / AISLES_FILE).write_text('{"produce": ["fruit"]}')
    assert read_aisles(tmp_path) == {"produce": ["fruit"]}
