"""Slices: accuracy by department, length of the name, and words not in training."""

import pandas as pd

from grocer.evaluation.slices import accuracies, first_words

PRODUCTS = pd.DataFrame(
    {
        "product_name": ["Whole Milk", "Oat Milk", "Red Apples from the Valley"],
        "department": ["dairy eggs", "dairy eggs", "produce"],
        "correct": [True, False, True],
    }
)
SLICES = accuracies(PRODUCTS, pd.Series(["whole milk", "red apples"]))


def test_accuracy_of_each_slice():
    values = [each.accuracy for each in SLICES]
    assert values == sorted(values)
    found = {(each.slice, each.value): (each.products, each.accuracy) for each in SLICES}
    assert found == {
        ("department", "dairy eggs"): (2, 0.5),
        ("department", "produce"): (1, 1.0),
        ("words in the name", "up to 2"): (2, 0.5),
        ("words in the name", "5 or 6"): (1, 1.0),
        ("words not in training", "0"): (1, 1.0),
        ("words not in training", "1"): (1, 0.0),
        ("words not in training", "3 or more"): (1, 1.0),
    }


def test_first_words_are_in_lower_case_and_may_be_empty():
    names = pd.Series(["Dole Bananas", "DOLE's Pineapple", "  (organic) Figs", "100% Juice", "&"])
    assert first_words(names).tolist() == ["dole", "dole", "organic", "100", ""]
