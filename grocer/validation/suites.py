"""What must hold of each table, as Great Expectations suites; each says so in a sentence.

A sentence stands in an expectation's `notes`, unlike any other of its table: it is what people
read in the report and in the line that says why a run stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import great_expectations.expectations as gxe

from grocer.config.run import RunConfig

REASONS = "reasons"
"""Key of an expectation's `meta`: why rejected order lines, of which it is, were rejected."""

Expectation = Any  # great_expectations ships no types that mypy could follow here


def aisles() -> list[Expectation]:
    """Of `aisles`, with a column `departments`: how many departments its products lie in."""
    return [
        *_key("aisle_id"),
        *_named("aisle"),
        gxe.ExpectColumnValuesToBeBetween(
            column="departments",
            max_value=1,
            notes="each aisle lies in one department",
        ),
    ]


def departments() -> list[Expectation]:
    """Of `departments`."""
    return [
        *_key("department_id"),
        *_named("department"),
        gxe.ExpectColumnValuesToBeUnique(
            column="department", notes="no two departments share a name"
        ),
    ]


def products(config: RunConfig, with_aisles: bool) -> list[Expectation]:
    """Of `products`, joined to their departments and aisles."""
    unlabelled = percent(config.validation.max_unlabelled_fraction)
    checks = [
        gxe.ExpectColumnValuesToBeOfType(
            column="product_id", type_="int64", notes="product_id is a whole number"
        ),
        *_key("product_id"),
        *_named("product_name"),
        gxe.ExpectColumnValuesToNotBeNull(
            column="department", notes="each product's department is known"
        ),
        gxe.ExpectColumnValuesToNotBeInSet(
            column=config.catalogue.label,
            value_set=list(config.catalogue.unlabelled),
            mostly=1 - config.validation.max_unlabelled_fraction,
            notes=f"at most {unlabelled} of products have no {config.catalogue.label} yet "
            f"({', '.join(config.catalogue.unlabelled) or 'no name stands for that'})",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="purchases", min_value=0, notes="purchases are 0 or more"
        ),
    ]
    if with_aisles:
        checks.append(
            gxe.ExpectColumnValuesToNotBeNull(column="aisle", notes="each product's aisle is known")
        )
    return checks


def order_lines(with_orders: bool) -> list[Expectation]:
    """Of the joined order lines: what can be said of each line by itself."""
    checks = [
        _not_null("order_id"),
        _not_null("product_id"),
        gxe.ExpectColumnValuesToBeBetween(
            column="add_to_cart_order", min_value=1, notes="add_to_cart_order counts from 1"
        ),
        _one_of("reordered", [0, 1]),
    ]
    if with_orders:
        checks += [
            _not_null("user_id"),
            _one_of("eval_set", ["prior", "train", "test"]),
            gxe.ExpectColumnValuesToBeBetween(
                column="order_number", min_value=1, notes="order_number counts from 1"
            ),
            _between("order_dow", 0, 6),
            _between("order_hour_of_day", 0, 23),
            gxe.ExpectColumnValuesToBeBetween(
                column="days_since_prior_order",
                min_value=0,
                notes="days_since_prior_order is 0 or more",
            ),
        ]
    return checks


def totals(config: RunConfig, with_lines: bool) -> list[Expectation]:
    """Of `totals`, one row of figures about the whole."""
    limits, label = config.validation, config.catalogue.label
    one = f"an {label}" if label == "aisle" else f"a {label}"
    nulls, orphans = percent(limits.max_null_fraction), percent(limits.max_orphan_fraction)
    checks = [
        gxe.ExpectColumnMaxToBeBetween(
            column="labelled_products",
            min_value=limits.min_products,
            notes=f"at least {limits.min_products:,} products have {one} to learn from",
        ),
        gxe.ExpectColumnMaxToBeBetween(
            column="labels",
            min_value=2,
            notes=f"products lie in at least 2 {label}s",
        ),
    ]
    if with_lines:
        checks += [
            gxe.ExpectColumnMaxToBeBetween(
                column="null_fraction",
                max_value=limits.max_null_fraction,
                notes=f"at most {nulls} of order lines have a null",
                meta={REASONS: ["a null"]},
            ),
            gxe.ExpectColumnMaxToBeBetween(
                column="orphan_fraction",
                max_value=limits.max_orphan_fraction,
                notes=f"at most {orphans} of order lines name a product or an order that "
                "is not there",
                meta={REASONS: ["no such product", "no such order"]},
            ),
            gxe.ExpectColumnMaxToBeBetween(
                column="repeated_lines",
                max_value=0,
                notes="no product stands twice in an order",
                meta={REASONS: ["twice in its order"]},
            ),
            gxe.ExpectColumnMaxToBeBetween(
                column="repeated_orders",
                max_value=0,
                notes="no order_id stands twice in orders",
                meta={REASONS: ["order twice in orders"]},
            ),
        ]
    return checks


def percent(share: float) -> str:
    """A share as people read it: 0.001 is `0.1 %`."""
    return f"{100 * share:.4g} %"


def _key(column: str) -> Sequence[Expectation]:
    return (
        _not_null(column),
        gxe.ExpectColumnValuesToBeUnique(column=column, notes=f"no {column} stands twice"),
    )


def _named(column: str) -> Sequence[Expectation]:
    return (
        _not_null(column),
        gxe.ExpectColumnValuesToMatchRegex(
            column=column, regex=r"\S", notes=f"no {column} is blank"
        ),
    )


def _not_null(column: str) -> Expectation:
    return gxe.ExpectColumnValuesToNotBeNull(column=column, notes=f"no {column} is null")


def _one_of(column: str, values: list[Any]) -> Expectation:
    names = ", ".join(map(str, values))
    return gxe.ExpectColumnValuesToBeInSet(
        column=column, value_set=values, notes=f"{column} is one of {names}"
    )


def _between(column: str, low: int, high: int) -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(
        column=column,
        min_value=low,
        max_value=high,
        notes=f"{column} lies from {low} to {high}",
    )
