"""Detection and false alarms of drift, and the error of the estimated accuracy.

    .venv/bin/python benchmarks/drift.py [--splits DIR] [--windows 200]

Fits the linear model on the training products of a split and calibrates it on the validation
products. Each repetition divides the test products at random: one half is the reference, and
windows of the other half are shifted. The models are the same throughout. No product of a window
is known to the model or to the reference.

The last line is one JSON object: `ratio` is the mean absolute error of the accuracy of the
reference over that of the estimated accuracy, in the shifted windows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd

from grocer.artifacts.drift import Signal
from grocer.errors import GrocerError
from grocer.evaluation.predictions import read_tables
from grocer.inference import drift
from grocer.model.combination import Floats, fit_weight, scale
from grocer.model.linear.classifier import LinearModel, fit_linear

UNITS = ("12 OZ", "500 ML", "6 CT", "1 LB", "2 PK", "16.9 FL OZ")

Random = np.random.Generator


def other_shop(name: str, random: Random) -> str:
    """Return the name as a till would print it: upper case, words shortened, a unit."""
    words = [
        word if len(word) < 5 else word[0] + word[1:].translate(_VOWELS) for word in name.split()
    ]
    return " ".join([*(word[:5] for word in words), random.choice(UNITS)]).upper()


def misspelled(name: str, random: Random) -> str:
    """Return the name with one letter of each fourth word dropped, doubled or swapped."""
    words = name.split()
    for _ in range(1 + len(words) // 4):
        row = int(random.integers(len(words)))
        word = words[row]
        at = int(random.integers(max(1, len(word) - 1)))
        edits = (
            word[:at] + word[at + 1 :],
            word[:at] + word[at : at + 1] * 2 + word[at + 1 :],
            word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :],
        )
        words[row] = edits[int(random.integers(3))]
    return " ".join(words)


_VOWELS = str.maketrans("", "", "aeiouAEIOU")
STYLES: dict[str, Callable[[str, Random], str]] = {
    "other shop": other_shop,
    "misspelled": misspelled,
}


@dataclass(frozen=True)
class Products:
    """Test products in one style of names, with their predictions and signals."""

    probabilities: Floats
    correct: Floats
    signals: dict[Signal, Floats]


@dataclass(frozen=True)
class Window:
    """Products of a window: rows of the test products, and of which style each one is."""

    scenario: str
    rows: np.ndarray
    shifted: np.ndarray
    style: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--splits", type=Path, default=Path("build/demo/artifacts/build_dataset"), metavar="DIR"
    )
    parser.add_argument("--windows", type=int, default=200, help="of each scenario")
    parser.add_argument("--size", type=int, default=1000, help="products of a window")
    options = parser.parse_args()
    try:
        tables = read_tables(options.splits)
        model = fit_linear(tables, sorted(set(tables["train"]["department"])))
        result = measure(tables, model, options)
    except GrocerError as error:
        parser.error(str(error))
    print(json.dumps(result))


def measure(
    tables: dict[str, pd.DataFrame], model: LinearModel, options: argparse.Namespace
) -> dict[str, Any]:
    validation, test = tables["validation"], tables["test"]
    index = {label: i for i, label in enumerate(model.labels)}
    logs = model.log_probabilities(validation["product_name"].tolist())
    weight = fit_weight(logs, validation["department"].map(index).to_numpy())
    truth = test["department"].map(index).to_numpy()
    styles = {"": score(model, weight, test["product_name"].tolist(), truth)}
    for style, change in STYLES.items():
        random = np.random.default_rng(0)
        names = [change(name, random) for name in test["product_name"]]
        print(f"{style}: {', '.join(names[:4])}", flush=True)
        styles[style] = score(model, weight, names, truth)
    measured = []
    for number in range(options.windows):
        random = np.random.default_rng(number)
        order = random.permutation(len(test))
        half = len(test) // 2
        plain, purchases = styles[""], test["purchases"].to_numpy(dtype=np.float64)
        known = drift.reference(
            {name: values[order[:half]] for name, values in plain.signals.items()},
            purchases[order[:half]],
            sum(len(tables[side]) for side in ("train", "validation", "test")),
        )
        expected = float(plain.correct[order[:half]].mean())
        for window in windows(random, order[half:], truth, purchases, options.size):
            content = mixed(styles, window)
            measured.append(
                {"scenario": window.scenario, "expected": expected}
                | assess(content, known, number + 1)
            )
    table = pd.DataFrame(measured)
    scenarios = summarise(table)
    shifted = [row for row in scenarios.values() if row["shifted"]]
    errors = [float(np.mean([row[key] for row in shifted])) for key in ("naive_mae", "mae")]
    result = {"ratio": errors[0] / errors[1], "test_products": len(test), "weight": weight}
    print(pd.DataFrame(scenarios).T.to_string(float_format=lambda value: f"{value:.3f}"))
    return result | {"scenarios": scenarios}


def score(model: LinearModel, weight: float, names: list[str], truth: np.ndarray) -> Products:
    probabilities = scale(model.log_probabilities(names), weight)
    signals = drift.measure(names, probabilities, model.features)
    correct = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    return Products(probabilities, correct, signals)


def windows(
    random: Random, pool: np.ndarray, truth: np.ndarray, purchases: Floats, size: int
) -> Iterator[Window]:
    """Yield a window of each scenario; a product occurs once in a window."""
    none = np.zeros(size, dtype=bool)
    pool = random.permutation(pool)
    yield Window("none: products", pool[:size], none, "")
    weights = purchases[pool] / purchases[pool].sum()
    positive = min(size, int((weights > 0).sum()))
    popular = random.choice(pool, positive, replace=False, p=weights)
    yield Window("none: by purchases", popular, none[:positive], "")
    labels = random.permutation(len(np.unique(truth)))
    for count in (len(labels) // 2, 3):
        chosen = pool[np.isin(truth[pool], labels[:count])][:size]
        if len(chosen):
            yield Window(f"{count} departments", chosen, none[: len(chosen)], "")
    for style in STYLES:
        for share in (0.1, 0.3, 1.0):
            shifted = np.arange(size) < share * size
            yield Window(f"{style} {share:.0%}", pool[:size], shifted, style)


def mixed(styles: dict[str, Products], window: Window) -> Products:
    plain, other, rows = styles[""], styles[window.style], window.rows
    shifted = window.shifted

    def pick(first: Floats, second: Floats) -> Floats:
        mask = shifted.reshape((-1,) + (1,) * (first.ndim - 1))
        return np.where(mask, second[rows], first[rows])

    return Products(
        pick(plain.probabilities, other.probabilities),
        pick(plain.correct, other.correct),
        {name: pick(plain.signals[name], other.signals[name]) for name in plain.signals},
    )


def assess(content: Products, known: Any, number: int) -> dict[str, Any]:
    """Return the tests of a window, alone and as the window `number` of a predictor."""
    once = drift.compare(content.signals, known)
    later = drift.compare(content.signals, known, number)
    estimate = drift.estimated_accuracy(content.signals["confidence"][:, 0], known)
    accuracy = float(content.correct.mean())
    return {
        **{name: each.drift for name, each in once.items()},
        "any": any(each.drift for each in once.values()),
        "sequential": any(each.drift for each in later.values()),
        "products": len(content.correct),
        "accuracy": accuracy,
        "estimate": estimate.accuracy,
        "mae": abs(estimate.accuracy - accuracy),
        "covered": estimate.low <= accuracy <= estimate.high,
    }


def summarise(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the means of each scenario."""
    table = table.assign(naive_mae=(table["expected"] - table["accuracy"]).abs())
    result = {}
    for scenario, rows in table.groupby("scenario", sort=False):
        means = rows.drop(columns="scenario").astype(float).mean().to_dict()
        result[str(scenario)] = {"shifted": not str(scenario).startswith("none"), **means}
    return result


if __name__ == "__main__":
    main()
