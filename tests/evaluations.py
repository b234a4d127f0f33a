"""Evaluations as `evaluation.json` holds them, sound or with something changed, and what is read
off the gate's decision about them."""

import copy
import math
from functools import reduce

from grocer.settings import GatePolicy

LABELS = ["bulk", "dairy", "pets"]


MATRIX = [[90, 5, 5], [4, 92, 4], [6, 4, 90]]  # 272 of 300 right


LENIENT = GatePolicy(min_accuracy=0.8)


def mcnemar(won, lost):
    tail = sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2 ** (won + lost))


def pairing(right, products, won, lost):
    """The model, with `right` of `products`, against one that loses `won` and wins `lost`."""
    other = (right - won + lost) / products
    return {
        "products": products,
        "accuracy": other,
        "paired": {
            "products": products,
            "model_accuracy": right / products,
            "baseline_accuracy": other,
            "only_model_right": won,
            "only_baseline_right": lost,
            "p_value": mcnemar(won, lost),
        },
    }


def side(right, products, low=None, ece=0.02):
    accuracy = right / products
    return {
        "products": products,
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.03 if low is None else low,
        "accuracy_high": min(1.0, accuracy + 0.03),
        "macro_f1": 0.8,
        "top3_accuracy": 1.0,
        "weighted_accuracy": 0.9,
        "weighted_accuracy_low": 0.88,
        "weighted_accuracy_high": 0.92,
        "ece": ece,
        "log_loss": 0.3,
    }


def evaluation(matrix=MATRIX, *, train=950, low=None, ece=0.02, linear=(40, 10), champion=None):
    """A sound evaluation of what `matrix` counts; `train` of 1,000 training products are right."""
    products, right = sum(map(sum, matrix)), sum(matrix[i][i] for i in range(len(matrix)))
    columns = [sum(row[i] for row in matrix) for i in range(len(matrix))]
    return {
        "schema": 1,
        "digests": {"model": "a" * 64, "splits": "b" * 64},
        "confidence": 0.95,
        "labels": LABELS[: len(matrix)],
        "metrics": {
            "train": side(train, 1000),
            "validation": side(270, 300),
            "test": side(right, products, low, ece),
        },
        "departments": {
            name: {
                "support": sum(matrix[i]),
                "precision": matrix[i][i] / columns[i] if columns[i] else None,
                "recall": matrix[i][i] / sum(matrix[i]),
                "f1": 2 * matrix[i][i] / (sum(matrix[i]) + columns[i]),
            }
            for i, name in enumerate(LABELS[: len(matrix)])
        },
        "confusion": matrix,
        "calibration": {"temperature": 1.2, "reliability": []},
        "baselines": {
            "majority": pairing(right, products, 180, 8),
            "linear": pairing(right, products, *linear),
            "base_model": pairing(right * 200 // products, 200, 120, 5),
        },
        "champion": champion and {"digest": "c" * 64, **pairing(right, products, *champion)},
    }


def reason(decision, rule):
    return next(reason for reason in decision.reasons if reason.rule == rule)


def policy(**limits):
    return GatePolicy(**{"min_accuracy": 0.8, **limits})


# What no decision looks at.
OPTIONAL = {"calibration.reliability", "champion.digest"}


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif ".".join(path) not in OPTIONAL:
        yield path


WHOLE = evaluation(champion=(20, 10))


OWED = list(leaves(WHOLE))


def changed(given, path, value=...):
    """A copy with another value at `path`, or with nothing there."""
    copied = copy.deepcopy(given)
    owner = reduce(lambda node, key: node[key], path[:-1], copied)
    if value is ...:
        del owner[path[-1]]
    else:
        owner[path[-1]] = value
    return copied


SHARES = [path for path in OWED if isinstance(reduce(lambda n, k: n[k], path, WHOLE), float)]
