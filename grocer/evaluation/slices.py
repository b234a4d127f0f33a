"""Accuracy of slices of the test products: by department, length of name and unseen words."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from grocer.artifacts.evaluation import SliceMetrics

_WORD = re.compile(r"\w+")


def words(name: str) -> list[str]:
    """Return the words of a name in lower case."""
    return _WORD.findall(name.casefold())


def accuracies(products: pd.DataFrame, train_names: Iterable[str]) -> tuple[SliceMetrics, ...]:
    """Return the accuracy of each slice of test products, lowest first.

    Every product is in one slice of each kind.

    Args:
        products: test products with product_name, department and correct (bool).
        train_names: all names that the model was trained on.
    """
    known = {word for name in train_names for word in words(name)}
    split = products["product_name"].map(words)
    unseen = split.map(lambda name: sum(word not in known for word in name))
    kinds = {
        "department": products["department"],
        "words in the name": split.map(len).map(_length),
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


def _length(count: int) -> str:
    """The length class of a name with `count` words."""
    if count <= 2:
        return "up to 2"
    return "3 or 4" if count <= 4 else "5 or 6" if count <= 6 else "7 or more"
