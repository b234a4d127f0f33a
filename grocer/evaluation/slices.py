"""Where the model is weak: accuracy by department, length of name, and words never trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

_WORD = re.compile(r"\w+")


def words(name: str) -> list[str]:
    """The words of a name, lower-cased."""
    return _WORD.findall(name.casefold())


def accuracies(scored: pd.DataFrame, train_names: Iterable[str]) -> list[dict[str, object]]:
    """Accuracy of each slice of test products, the worst first.

    `scored` has product_name, department and right (bool); `train_names` are all that the model
    was trained on. Every product is in one slice of each kind.
    """
    known = {word for name in train_names for word in words(name)}
    spelt = scored["product_name"].map(words)
    unseen = spelt.map(lambda found: sum(word not in known for word in found))
    kinds = {
        "department": scored["department"],
        "words in the name": spelt.map(len).map(_length),
        "words never trained on": unseen.map(
            lambda count: str(count) if count < 3 else "3 or more"
        ),
    }
    slices: list[dict[str, object]] = [
        {
            "slice": kind,
            "value": str(value),
            "products": len(right),
            "accuracy": float(right.mean()),
        }
        for kind, values in kinds.items()
        for value, right in scored["right"].groupby(values)
    ]
    return sorted(slices, key=lambda found: (found["accuracy"], found["slice"], found["value"]))


def _length(count: int) -> str:
    """The bracket that a name of `count` words falls in."""
    if count <= 2:
        return "up to 2"
    return "3 or 4" if count <= 4 else "5 or 6" if count <= 6 else "7 or more"
