"""Which side of the split a product stands on: a property of its name alone.

Two wishes pull apart. *Stable*: a product never changes side when others come, go or change
label, so that last month's test products are not this month's training. *Stratified*: each
department has its share on each side. Stability in full leaves one choice: a side that looks at
nothing but the product itself, for a quota or a rank would look at the others. So a salted hash
of the name decides, in every department by the same thresholds. Each department then has its
share in expectation, within the chance that n tosses leave (2 points of 10 % at n = 1,000 are
two standard deviations), and the report says how far each is from it. The price: a department
of a few products may have none to be tested on. It is never moved for that; it is named, and
the gate, which passes nothing unmeasured, says no.

The hash sees a name's *family*: its words in alphabetical order without a plural's `s`. Names
that differ in no more (`Greek Yogurt Vanilla`, `Vanilla Greek Yogurts`) remain two examples,
yet one is never the answer key of the other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal, get_args

import pandas as pd

from grocer.config.stages import SplitConfig
from grocer.errors import CatalogueError
from grocer.io.atomic import json_digest

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = get_args(Side)


def side(normalised_name: str, config: SplitConfig) -> Side:
    """The side of a name: the same on every machine, whatever else is in the catalogue.

    Raising a share only takes names in; a larger `test` keeps every test name where it was.
    """
    salted = f"{config.seed}\n{family(normalised_name)}".encode()
    place = int.from_bytes(hashlib.sha256(salted).digest()[:8], "big") / 2**64
    if place < config.test:
        return "test"
    return "validation" if place < config.test + config.validation else "train"


def family(normalised_name: str) -> str:
    """What a name has in common with its rewordings: its words, sorted and in the singular."""
    words = normalised_name.split()
    return " ".join(
        sorted(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words)
    )


def divide(examples: pd.DataFrame, config: SplitConfig) -> dict[Side, pd.DataFrame]:
    """The rows of `examples` on each side, by their `normalised_name`, in their order.

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
    untaught = sorted(set(examples["department"]) - set(parts["train"]["department"]))
    if untaught:
        raise CatalogueError(
            f"no training product for {', '.join(untaught)}: each label needs at least 1 on the "
            f"train side; add products to it, list it in catalogue.unlabelled, or change split.seed"
        )
    return parts


def report(parts: Mapping[Side, pd.DataFrame], config: SplitConfig) -> dict[str, Any]:
    """What the sides hold, and the proof that they share nothing.

    `overlap` counts names and prompts on both of two sides; `digests` are of each side's
    (name, label) pairs in order, so that two machines can compare a split without its data;
    `stratification` names the department and side whose count is furthest from its share, in
    standard deviations (z) of that many independent tosses.

    Raises:
        AssertionError: two sides share a name or a prompt, which would be a fault of Grocer.
    """
    overlap = {
        f"{one}_{other}": len(shared(parts[one], parts[other]))
        for one, other in combinations(SIDES, 2)
    }
    assert not any(overlap.values()), f"sides of the split share names or prompts: {overlap}"
    departments = _counts(parts)
    return {
        "products": {each: len(part) for each, part in parts.items()},
        "purchases": {each: int(part["purchases"].sum()) for each, part in parts.items()},
        "overlap": overlap,
        "departments": departments,
        "without_test": [name for name, count in departments.items() if not count["test"]],
        "stratification": _furthest(departments, config),
        "digests": {
            each: json_digest(part[["normalised_name", "department"]].values.tolist())
            for each, part in parts.items()
        },
    }


def shared(one: pd.DataFrame, other: pd.DataFrame) -> set[str]:
    """Normalised names and prompts that stand in both."""
    return set().union(
        *(set(one[column]) & set(other[column]) for column in ("normalised_name", "prompt"))
    )


def _counts(parts: Mapping[Side, pd.DataFrame]) -> dict[str, dict[Side, int]]:
    """Products of each department on each side."""
    counts = {each: part["department"].value_counts() for each, part in parts.items()}
    names = sorted(set().union(*(count.index for count in counts.values())))
    return {
        name: {each: int(count.get(name, 0)) for each, count in counts.items()} for name in names
    }


def _furthest(departments: Mapping[str, Mapping[Side, int]], config: SplitConfig) -> dict[str, Any]:
    """The department and side furthest from its share."""
    shares: dict[Side, float] = {
        "train": 1.0 - config.validation - config.test,
        "validation": config.validation,
        "test": config.test,
    }
    rows = []
    for name, counts in departments.items():
        products = sum(counts.values())
        for each, share in shares.items():
            deviation = math.sqrt(products * share * (1.0 - share))
            z = (counts[each] - products * share) / deviation
            rows.append(
                {
                    "department": name,
                    "side": each,
                    "products": products,
                    "share": counts[each] / products,
                    "expected": share,
                    "z": z,
                }
            )
    return max(rows, key=lambda row: abs(row["z"]))
