"""A scorer without a model, and splits of made-up products that it gets mostly right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grocer.step import step

NOUNS = {
    "bakery": ["Bread", "Bagel", "Muffin", "Croissant", "Brioche"],
    "dairy eggs": ["Milk", "Yogurt", "Butter", "Cheese", "Kefir"],
    "produce": ["Apple", "Banana", "Carrot", "Spinach", "Melon"],
}
LABELS = tuple(NOUNS)
LEAVES = tuple((label, aisle) for label in LABELS for aisle in ("end", "front"))
STYLES = ["Organic", "Fresh", "Golden", "Farm", "Little", "Family Size", "Sweet", "Wild"]


class KnowsNouns:
    """Answers by the noun of a name, hesitantly; without its adapter it knows nothing."""

    temperature = 1.0

    def __init__(
        self,
        labels: Sequence[str] = LABELS,
        sureness: float = 2.0,
        leaves: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.labels, self.sureness, self.tuned = tuple(labels), sureness, True
        self.leaves = tuple(leaves)

    @contextmanager
    def untuned(self) -> Iterator[None]:
        self.tuned = False
        yield
        self.tuned = True

    def log_probabilities(
        self, names: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        logits = np.zeros((len(names), len(self.labels)))
        for row, name in enumerate(names):
            for column, label in enumerate(self.labels):
                found = any(noun in name for noun in NOUNS.get(label, []))
                logits[row, column] = self.sureness * (found and self.tuned) - 0.01 * column
        if progress is not None:
            progress(len(names), len(names))
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def aisle_log_probabilities(self, names: Sequence[str], labels: Sequence[int]) -> np.ndarray:
        """By where the noun stands among its department's: the first three are in front."""
        found = np.full((len(names), len(self.leaves)), -np.inf)
        for row, (name, place) in enumerate(zip(names, labels, strict=True)):
            front = aisle_of(name) == "front"
            for column, (label, aisle) in enumerate(self.leaves):
                if label == self.labels[place]:
                    found[row, column] = np.log(0.9 if (aisle == "front") == front else 0.1)
        return found


def aisle_of(name: str) -> str:
    """Where the noun of a name stands: the first three of a department are in front."""
    fronts = [noun for nouns in NOUNS.values() for noun in nouns[:3]]
    return "front" if any(noun in name for noun in fronts) else "end"


def products() -> pd.DataFrame:
    """120 products: a style, a noun; every twelfth lies in a department that its noun belies."""
    rows: list[dict[str, Any]] = []
    for style in STYLES:
        for label, nouns in NOUNS.items():
            for noun in nouns:
                number = len(rows) + 1
                name = f"{style} {noun}"
                place = LABELS[(LABELS.index(label) + (number % 12 == 0)) % len(LABELS)]
                rows.append(
                    {
                        "product_id": number,
                        "product_name": name,
                        "normalised_name": name.lower(),
                        "department": place,
                        "purchases": 1 + number % 7,
                        "prompt": f"{name} =>",
                        "completion": f" {place}",
                    }
                )
    return pd.DataFrame(rows)


def write_splits(out: Path, table: pd.DataFrame | None = None) -> Path:
    """Every third product tests, the one before it validates; two have no department."""
    table = products() if table is None else table
    place = np.arange(len(table)) % 3
    with step("prompts", out) as part:
        for side, rows in {
            "train": place == 0,
            "validation": place == 1,
            "test": place == 2,
        }.items():
            table[rows].to_parquet(part / f"{side}.parquet", index=False)
        columns = ["product_id", "product_name", "normalised_name", "purchases"]
        unlabelled = table[columns].head(2).assign(purchases=[1, 5])
        unlabelled["product_name"] = ["Late Bagel", "Late <b>Kefir</b>"]
        unlabelled.to_parquet(part / "unlabelled.parquet", index=False)
    return out
