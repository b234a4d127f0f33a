"""Assign each product to a side of the split by a salted hash of its name.

The split is *stable*: when products are added, removed or relabelled, no other product changes
side, so test products never become training products. Quotas or ranks would depend on other
products; a hash does not. The split is also *stratified*, up to sampling error: the thresholds are
the same in every department (2 points of 10 % at 1,000 products are two standard deviations). A
department of a few products may have no test product: then nothing is known about its accuracy.

The hash uses a name's *family*: its words in alphabetical order, without a plural `s`. Names of
one family (`Greek Yogurt Vanilla`, `Vanilla Greek Yogurts`) are separate examples on one side.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any, TypeVar

import pandas as pd

from grocer.artifacts.base import SIDES, BySide, Side
from grocer.artifacts.splits import Overlap, Stratification
from grocer.config.stages import SplitConfig
from grocer.errors import CatalogueError, first_five
from grocer.io.atomic import json_digest

T = TypeVar("T")


def side(normalised_name: str, config: SplitConfig) -> Side:
    """Return the side of a name, which depends only on the name, the shares and the seed.

    If `config.test` grows, all test names stay test names.
    """
    salted = f"{config.seed}\n{family(normalised_name)}".encode()
    position = int.from_bytes(hashlib.sha256(salted).digest()[:8], "big") / 2**64
    if position < config.test:
        return "test"
    return "validation" if position < config.test + config.validation else "train"


def family(normalised_name: str) -> str:
    """Return the family of a name: its words, sorted and without a plural `s`."""
    words = normalised_name.split()
    return " ".join(
        sorted(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words)
    )


def divide(examples: pd.DataFrame, config: SplitConfig) -> dict[Side, pd.DataFrame]:
    """Return the rows of `examples` on each side, in their order, by `normalised_name`.

    Raises:
        CatalogueError: a side without products, or a label without training products.
    """
    sides = examples["normalised_name"].map(lambda name: side(name, config))
    parts = {each: examples[sides == each].reset_index(drop=True) for each in SIDES}
    for each, part in parts.items():
        if part.empty:
            raise CatalogueError(
                f"none of {len(examples):,} products is on the {each} side of the split; add "
                f"products, or change split.validation or split.test"
            )
    untrained = sorted(set(examples["department"]) - set(parts["train"]["department"]))
    if untrained:
        raise CatalogueError(
            f"no training product for {first_five(untrained, ', ')}: each label needs at least 1 "
            "on the train side; add products to it, list it in catalogue.unlabelled, or change "
            "split.seed; with many such labels, check data.columns.department"
        )
    return parts


def summary(parts: Mapping[Side, pd.DataFrame], config: SplitConfig) -> dict[str, Any]:
    """Return the fields of `Splits` that describe the sides.

    `digests` are of each side's (name, label) pairs in order, to compare splits between machines.

    Raises:
        RuntimeError: two sides share a name or a prompt, which is an internal error.
    """
    overlaps = {
        f"{one}_{other}": {
            value
            for column in ("normalised_name", "prompt")
            for value in set(parts[one][column]) & set(parts[other][column])
        }
        for one, other in combinations(SIDES, 2)
    }
    for sides, names in overlaps.items():
        if names:
            raise RuntimeError(
                f"{len(names)} names or prompts are on two sides of the split ({sides}), "
                f"for example {min(names)!r}"
            )

    def count(department: str) -> BySide[int]:
        return _by_side(parts, lambda part: int((part["department"] == department).sum()))

    names = set().union(*(part["department"] for part in parts.values()))
    departments = {name: count(name) for name in sorted(names)}
    return {
        "products": _by_side(parts, len),
        "purchases": _by_side(parts, lambda part: int(part["purchases"].sum())),
        "overlap": Overlap(**{sides: len(names) for sides, names in overlaps.items()}),
        "departments": departments,
        "without_test": tuple(name for name, count in departments.items() if not count.test),
        "stratification": _largest_deviation(departments, config),
        "digests": _by_side(
            parts, lambda part: json_digest(part[["normalised_name", "department"]].values.tolist())
        ),
    }


def _by_side(parts: Mapping[Side, pd.DataFrame], value: Callable[[pd.DataFrame], T]) -> BySide[T]:
    return BySide(**{name: value(part) for name, part in parts.items()})


def _largest_deviation(
    departments: Mapping[str, BySide[int]], config: SplitConfig
) -> Stratification:
    """Return the department and side with the largest deviation from its share."""
    shares: dict[Side, float] = {
        "train": 1.0 - config.validation - config.test,
        "validation": config.validation,
        "test": config.test,
    }
    deviations = []
    for department, counts in departments.items():
        products = sum(count for _, count in counts)
        for side, share in shares.items():
            count = getattr(counts, side)
            deviation = math.sqrt(products * share * (1.0 - share))
            deviations.append(
                Stratification(
                    department=department,
                    side=side,
                    products=products,
                    share=count / products,
                    expected=share,
                    z=(count - products * share) / deviation,
                )
            )
    return max(deviations, key=lambda row: abs(row.z))
