"""Accuracy of slices of the test products: by department, length of name and unseen words."""

from __future__ import annotations

import pandas as pd

from grocer.artifacts.metrics import SliceMetrics

_LENGTHS = [-1, 2, 4, 6, float("inf")]
_LENGTH_NAMES = ["up to 2", "3 or 4", "5 or 6", "7 or more"]


def accuracies(products: pd.DataFrame, train_names: pd.Series[str]) -> tuple[SliceMetrics, ...]:
    """Return the accuracy of each slice of test products, lowest first.

    Each product is in one slice of every kind.

    Args:
        products: test products with product_name, department and correct (bool).
        train_names: names of all training products.
    """
    known = set(_words(train_names).explode())
    words = _words(products["product_name"])
    unseen = words.map(lambda name: sum(word not in known for word in name))
    kinds = {
        "department": products["department"],
        "words in the name": pd.cut(words.map(len), _LENGTHS, labels=_LENGTH_NAMES).astype(str),
        "words not in training": unseen.map(lambda n: str(n) if n < 3 else "3 or more"),
    }
    slices = [
        SliceMetrics(
            slice=kind, value=str(value), products=len(correct), accuracy=float(correct.mean())
        )
        for kind, values in kinds.items()
        for value, correct in products["correct"].groupby(values)
    ]
    return tuple(sorted(slices, key=lambda each: (each.accuracy, each.slice, each.value)))


def first_words(names: pd.Series[str]) -> pd.Series[str]:
    """Return the first word of each name in lower case, often a brand; empty if it has none."""
    return _words(names).str[0].fillna("")


def _words(names: pd.Series[str]) -> pd.Series[list[str]]:
    """The words of each name, in lower case."""
    return names.str.casefold().str.findall(r"\w+")
