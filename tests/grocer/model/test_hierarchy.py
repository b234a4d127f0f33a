"""Protects the second level: an aisle is chosen within its department, and never beside it."""

from __future__ import annotations

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
from tests.grocer.model.test_label_trie import EOS, by_steps, edge_logits

COLON = 1
bodies = st.lists(st.integers(3, 6), min_size=1, max_size=3).map(tuple)
catalogues = st.dictionaries(bodies, st.sets(bodies, max_size=5), min_size=2, max_size=6)


def answers(catalogue):
    """Each department's whole answers: one an aisle, or its own where it has none."""
    return {
        department: [(*department, COLON, *aisle, EOS) for aisle in sorted(aisles)]
        or [(*department, EOS)]
        for department, aisles in catalogue.items()
    }


@given(catalogues, st.integers(0, 99))
def test_department_times_share_is_step_by_step_decoding_of_the_whole_answer(catalogue, seed):
    whole = answers(catalogue)
    everything = [sequence for sequences in whole.values() for sequence in sequences]
    shelves = {
        department: label_completions(
            [str(aisle) for aisle in sorted(catalogue[department])], sequences
        )
        for department, sequences in whole.items()
    }
    departments = label_trie([str(d) for d in whole], [each.prefix for each in shelves.values()])
    log_department = departments.log_probabilities(edge_logits(departments, seed))[0]
    for log_own, (department, each) in zip(log_department, shelves.items(), strict=True):
        within = np.zeros(1)
        if each.trie is not None:
            within = each.trie.log_probabilities(edge_logits(each.trie, seed, each.prefix))[0]
        expected = [by_steps(sequence, everything, seed) for sequence in whole[department]]
        np.testing.assert_allclose(log_own + within, expected, rtol=1e-10, atol=1e-10)


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=6),
    st.integers(0, 2**32 - 1),
    st.floats(0.1, 10.0),
)
def test_the_aisles_of_a_department_sum_to_its_probability(sizes, seed, temperature):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(len(sizes)), size=8)
    department = np.repeat(np.arange(len(sizes)), sizes)
    logs = random.normal(scale=5, size=(8, len(department)))
    best = probabilities.argmax(axis=1)
    within = np.where(department[None, :] == best[:, None], logs, -np.inf)
    found = leaf_probabilities(probabilities, within, temperature)
    for row, at in enumerate(best):
        total = found[row, department == at].sum()
        assert total == pytest.approx(probabilities[row, at] if sizes[at] else 0.0, rel=1e-9)
        assert not found[row, department != at].any()


def test_a_single_aisle_leaves_nothing_to_choose():
    only = label_completions(["bread"], [(7, COLON, 8, EOS)])
    assert (only.prefix, only.trie) == ((7, COLON, 8, EOS), None)
    assert only.tokens("bread") == only.tokens("") == only.prefix


def test_an_unknown_aisle_is_answered_by_what_tells_the_department():
    two = label_completions(["milk", "cream"], [(7, COLON, 8, EOS), (7, COLON, 9, 9, EOS)])
    assert two.prefix == (7, COLON)
    assert two.tokens("cream") == (7, COLON, 9, 9, EOS)
    assert two.tokens("caviar") == two.tokens("") == (7, COLON)


def test_a_stem_is_all_that_the_answers_share_also_where_one_begins_another():
    two = label_completions(["milk", "milk drinks"], [(7, COLON, 8, EOS), (7, COLON, 8, 9, EOS)])
    assert (two.prefix, two.suffixes) == ((7, COLON, 8), ((EOS,), (9, EOS)))


def test_answers_are_spelled_in_the_order_of_the_labels():
    aisles = {"produce": ("fruit", "herbs")}
    assert completion_labels(["bakery", "produce"], aisles) == [
        "bakery",
        "produce: fruit",
        "produce: herbs",
    ]
    assert leaves(["bakery", "produce"], aisles) == (("produce", "fruit"), ("produce", "herbs"))


def test_501_aisles_are_too_many():
    many = {"a": [str(i) for i in range(500)]}
    assert len(leaves(["a", "b"], many)) == 500
    limit = "501 aisles: the maximum is 500; set catalogue.levels=1 or use coarser aisles"
    with pytest.raises(ConfigError, match=f"^{limit}$"):
        leaves(["a", "b"], many | {"b": ["1"]})


def test_aisles_are_read_from_beside_the_labels_if_there_are_any(tmp_path):
    assert read_aisles(tmp_path) == {}
    (tmp_path / AISLES_FILE).write_text('{"produce": ["fruit"]}')
    assert read_aisles(tmp_path) == {"produce": ["fruit"]}


def test_aisles_of_the_same_tokens_are_refused():
    with pytest.raises(ConfigError, match="'milk' and 'Milk' have the same tokens"):
        label_completions(["milk", "Milk"], [(7, COLON, 8, EOS)] * 2)
