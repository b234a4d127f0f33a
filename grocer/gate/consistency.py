"""Whether an evaluation can be judged at all: every number is there, and the counts agree.

An evaluation is what `evaluation.json` holds. Readers take it and the keys that lead to a value,
and raise `UnmeasuredError` where there is nothing to go by.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

Evaluation = Mapping[str, Any]

SCHEMA = 1
SIDES = ("train", "validation", "test")
SHARES = (
    "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "top3_accuracy",
    "weighted_accuracy", "weighted_accuracy_low", "weighted_accuracy_high", "ece",
)  # fmt: skip
# What accuracies, which were computed from counts, may differ by from those counts.
ROUNDING = 1e-6


class UnmeasuredError(Exception):
    """A value is absent or can't be one; the text says which and why."""


def at(evaluation: Evaluation, *keys: str) -> Any:
    """The value at `keys`, of whatever type."""
    value: Any = evaluation
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            raise UnmeasuredError(f"{'.'.join(keys)} is absent")
        value = value[key]
    return value


def number(evaluation: Evaluation, *keys: str, most: float = math.inf) -> float:
    """A finite number from 0 to `most`."""
    value = at(evaluation, *keys)
    told = isinstance(value, int | float) and not isinstance(value, bool)
    if not (told and math.isfinite(value) and 0 <= value <= most):
        raise UnmeasuredError(f"{'.'.join(keys)} is {value!r}, no number from 0 to {most:g}")
    return float(value)


def share(evaluation: Evaluation, *keys: str) -> float:
    """A number from 0 to 1."""
    return number(evaluation, *keys, most=1.0)


def count(evaluation: Evaluation, *keys: str, least: int = 0) -> int:
    """A whole number, `least` or more."""
    value = at(evaluation, *keys)
    if not _is_count(value) or value < least:
        raise UnmeasuredError(f"{'.'.join(keys)} is {value!r}, no count from {least}")
    return int(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def named(evaluation: Evaluation, *keys: str) -> list[str]:
    """The names that have an entry of their own at `keys`."""
    value = at(evaluation, *keys)
    if not isinstance(value, Mapping) or not value:
        raise UnmeasuredError(f"{'.'.join(keys)} is {value!r}, no table of names")
    return list(value)


def labels(evaluation: Evaluation) -> list[str]:
    """The label set: two or more different names."""
    value = at(evaluation, "labels")
    named = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    if not named or len(set(value)) != len(value) or len(value) < 2:
        raise UnmeasuredError(f"labels is {value!r}, no list of 2 or more")
    return list(value)


def confusion(evaluation: Evaluation) -> list[list[int]]:
    """Counts, rows the truth and columns the predictions, both in the labels' order."""
    matrix, size = at(evaluation, "confusion"), len(labels(evaluation))
    rows = matrix if isinstance(matrix, list) else []
    square = len(rows) == size and all(isinstance(r, list) and len(r) == size for r in rows)
    if not square or not all(_is_count(cell) for row in rows for cell in row):
        raise UnmeasuredError(f"confusion is no table of {size} by {size} counts")
    return rows


def digests(evaluation: Evaluation) -> dict[str, str]:
    """Digests of the artifacts that were measured: `model` and `splits`."""
    found = {name: at(evaluation, "digests", name) for name in ("model", "splits")}
    for name, digest in found.items():
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise UnmeasuredError(f"digests.{name} is {digest!r}, no digest")
    return found


def measured(evaluation: Evaluation, baselines: Sequence[str]) -> tuple[int, list[str]]:
    """How many values an evaluation owes, and what is wrong with those that it fails to give.

    It owes them all, whether or not a limit looks at them; of the baselines those named.
    """
    total, wrong = 0, []
    for read in _owed(evaluation, baselines):
        total += 1
        try:
            read()
        except UnmeasuredError as lack:
            wrong.append(str(lack))
    return total, wrong + [f"{path} is not finite" for path in _not_finite(evaluation, ())]


def _owed(evaluation: Evaluation, baselines: Sequence[str]) -> Iterator[Callable[[], Any]]:
    """A reader of each value that is owed."""
    yield partial(_schema, evaluation)
    yield partial(labels, evaluation)
    yield partial(confusion, evaluation)
    yield partial(digests, evaluation)
    yield partial(share, evaluation, "confidence")
    yield partial(number, evaluation, "calibration", "temperature")
    for side in SIDES:
        yield partial(count, evaluation, "metrics", side, "products", least=1)
        yield partial(number, evaluation, "metrics", side, "log_loss")
        for name in SHARES:
            yield partial(share, evaluation, "metrics", side, name)
    for name in labels(evaluation):
        yield partial(count, evaluation, "departments", name, "support", least=1)
        yield partial(share, evaluation, "departments", name, "recall")
        yield partial(share, evaluation, "departments", name, "f1")
        yield partial(_precision, evaluation, name)
    for keys in _compared(evaluation, baselines):
        yield partial(count, evaluation, *keys, "products", least=1)
        yield partial(share, evaluation, *keys, "accuracy")
        yield partial(count, evaluation, *keys, "paired", "products", least=1)
        for name in ("only_model_right", "only_baseline_right"):
            yield partial(count, evaluation, *keys, "paired", name)
        for name in ("model_accuracy", "baseline_accuracy", "p_value"):
            yield partial(share, evaluation, *keys, "paired", name)


def _schema(evaluation: Evaluation) -> None:
    """Numbers of another schema may mean something else."""
    if count(evaluation, "schema") != SCHEMA:
        raise UnmeasuredError(f"schema is {evaluation['schema']}, not {SCHEMA}")


def _precision(evaluation: Evaluation, department: str) -> None:
    """Precision is null where nothing was put into the department, and only there."""
    if at(evaluation, "departments", department, "precision") is not None:
        share(evaluation, "departments", department, "precision")
    elif share(evaluation, "departments", department, "recall") > 0:
        raise UnmeasuredError(f"departments.{department}.precision is absent")


def _compared(evaluation: Evaluation, baselines: Sequence[str]) -> list[tuple[str, ...]]:
    """The keys of each baseline named, and of the champion if there is one."""
    keys: list[tuple[str, ...]] = [("baselines", name) for name in baselines]
    return keys if evaluation.get("champion") is None else [*keys, ("champion",)]


def _not_finite(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Where NaN or infinity stands, anywhere."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _not_finite(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _not_finite(inner, (*path, str(place)))
    elif isinstance(value, float) and not math.isfinite(value):
        yield ".".join(path)


def contradictions(evaluation: Evaluation, baselines: Sequence[str]) -> list[str]:
    """What of the evaluation can't be true together.

    Raises:
        UnmeasuredError: a value that the comparison needs is absent.
    """
    checks = [
        *_sides(evaluation),
        *_departments(evaluation),
        *_confusion(evaluation),
        *(check for keys in _compared(evaluation, baselines) for check in _pairs(evaluation, keys)),
    ]
    return [fault for holds, fault in checks if not holds]


Check = tuple[bool, str]


def _sides(evaluation: Evaluation) -> Iterator[Check]:
    for side in SIDES:
        accuracy, low, high, top3 = (
            share(evaluation, "metrics", side, name)
            for name in ("accuracy", "accuracy_low", "accuracy_high", "top3_accuracy")
        )
        inside = low - ROUNDING <= accuracy <= high + ROUNDING
        yield inside, f"{side} accuracy {accuracy:.4f} is outside its interval"
        yield accuracy <= top3 + ROUNDING, f"{side} accuracy is above top-3 accuracy"


def _departments(evaluation: Evaluation) -> Iterator[Check]:
    names, products = named(evaluation, "departments"), _tested(evaluation)
    yield set(names) == set(labels(evaluation)), "the departments are not the labels"
    support = [count(evaluation, "departments", name, "support") for name in names]
    recall = [share(evaluation, "departments", name, "recall") for name in names]
    right = sum(r * n for r, n in zip(recall, support, strict=True))
    told = share(evaluation, "metrics", "test", "accuracy") * products
    fault = f"the departments have {sum(support):,} products of {products:,} tested"
    yield sum(support) == products, fault
    yield _close(right, told, products), "recall by department does not add up to test accuracy"


def _confusion(evaluation: Evaluation) -> Iterator[Check]:
    for place, name in enumerate(labels(evaluation)):
        row = confusion(evaluation)[place]
        support = count(evaluation, "departments", name, "support")
        right = share(evaluation, "departments", name, "recall") * support
        same = sum(row) == support and _close(row[place], right, support)
        yield same, f"the confusion matrix has another support or recall of {name}"


def _pairs(evaluation: Evaluation, keys: tuple[str, ...]) -> Iterator[Check]:
    who = keys[-1]
    products = count(evaluation, *keys, "paired", "products")
    won, lost = (
        count(evaluation, *keys, "paired", name)
        for name in ("only_model_right", "only_baseline_right")
    )
    own = share(evaluation, *keys, "paired", "model_accuracy") * products
    other = share(evaluation, *keys, "paired", "baseline_accuracy") * products
    tested = _tested(evaluation)
    yield products <= tested, f"{who} was compared on more products than were tested"
    yield _close(own - other, won - lost, products), f"{who}: accuracies contradict the pairs"
    possible = won <= own + ROUNDING * products and lost <= other + ROUNDING * products
    yield possible, f"{who}: more pairs than right answers"
    if products == count(evaluation, *keys, "products"):
        told = share(evaluation, *keys, "accuracy") * products
        yield _close(other, told, products), f"{who}: two different accuracies"
    if products == tested:
        told = share(evaluation, "metrics", "test", "accuracy") * products
        yield _close(own, told, products), f"{who}: compared with another accuracy of the model"


def _tested(evaluation: Evaluation) -> int:
    return count(evaluation, "metrics", "test", "products")


def _close(one: float, other: float, products: int) -> bool:
    """Whether two numbers of products are the same but for rounding."""
    return abs(one - other) <= ROUNDING * products
