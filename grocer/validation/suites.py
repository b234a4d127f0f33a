"""Great Expectations suites of each table.

The `notes` of an expectation say what it checks and the limit. They are unique within a table, and
name the expectation in the report and in error messages.
"""

from collections.abc import Sequence
from typing import Any

import great_expectations.expectations as gxe

from grocer.config.run import RunConfig
from grocer.ingest.schema import Rejection

REJECTIONS = "rejections"
"""Key of an expectation's `meta`: the rejection reasons of the order lines that violate it."""

Expectation = Any  # great_expectations ships no types that mypy can use


def aisles() -> list[Expectation]:
    """Return the suite of `aisles`, with a column `departments`: departments of its products."""
    return [
        *_key("aisle_id"),
        *_name("aisle"),
        gxe.ExpectColumnValuesToBeBetween(
            column="departments", max_value=1, notes="aisle in several departments"
        ),
    ]


def departments() -> list[Expectation]:
    """Return the suite of `departments`."""
    return [*_key("department_id"), *_name("department"), _unique("department")]


def products(config: RunConfig, with_aisles: bool) -> list[Expectation]:
    """Return the suite of `products`, joined to their departments and aisles."""
    label, unlabelled = config.catalogue.label, list(config.catalogue.unlabelled)
    limit = config.validation.max_unlabelled_fraction
    suite = [
        gxe.ExpectColumnValuesToBeOfType(
            column="product_id", type_="int64", notes="invalid product_id, not an integer"
        ),
        *_key("product_id"),
        *_name("product_name"),
        gxe.ExpectColumnValuesToNotBeNull(column="department", notes="unknown department"),
        gxe.ExpectColumnValuesToNotBeInSet(
            column=label,
            value_set=unlabelled,
            mostly=1 - limit,
            notes=f"products without {label} "
            f"({', '.join(unlabelled) or 'catalogue.unlabelled is empty'}), "
            f"maximum {100 * limit:.4g} %",
        ),
        _between("purchases", 0),
    ]
    if with_aisles:
        suite.append(gxe.ExpectColumnValuesToNotBeNull(column="aisle", notes="unknown aisle"))
    return suite


def order_lines(with_orders: bool) -> list[Expectation]:
    """Return the suite of the joined order lines: expectations of single rows only."""
    suite = [
        _not_null("order_id"),
        _not_null("product_id"),
        _between("add_to_cart_order", 1),
        _one_of("reordered", [0, 1]),
    ]
    if with_orders:
        suite += [
            _not_null("user_id"),
            _one_of("eval_set", ["prior", "train", "test"]),
            _between("order_number", 1),
            _between("order_dow", 0, 6),
            _between("order_hour_of_day", 0, 23),
            _between("days_since_prior_order", 0),
        ]
    return suite


def totals(config: RunConfig, with_lines: bool) -> list[Expectation]:
    """Return the suite of `totals`, one row of figures about all tables."""
    limits, label = config.validation, config.catalogue.label
    suite = [
        gxe.ExpectColumnMaxToBeBetween(
            column="labelled_products",
            min_value=limits.min_products,
            notes=f"products with {label}, minimum {limits.min_products:,}",
        ),
        gxe.ExpectColumnMaxToBeBetween(column="labels", min_value=2, notes=f"{label}s, minimum 2"),
    ]
    if with_lines:
        nulls, orphans = limits.max_null_fraction, limits.max_orphan_fraction
        null = f"order lines with a null value, maximum {100 * nulls:.4g} %"
        orphan = f"order lines with unknown product_id or order_id, maximum {100 * orphans:.4g} %"
        unknown = (Rejection.UNKNOWN_PRODUCT, Rejection.UNKNOWN_ORDER)
        suite += [
            _at_most("null_fraction", nulls, null, Rejection.NULL_VALUE),
            _at_most("orphan_fraction", orphans, orphan, *unknown),
            _at_most("duplicate_lines", 0, "duplicate order line", Rejection.DUPLICATE_LINE),
            _at_most("duplicate_orders", 0, "duplicate order_id", Rejection.DUPLICATE_ORDER),
        ]
    return suite


def _key(column: str) -> Sequence[Expectation]:
    return (_not_null(column), _unique(column))


def _name(column: str) -> Sequence[Expectation]:
    pattern = {"regex": r"\S", "notes": f"blank {column}"}
    return (_not_null(column), gxe.ExpectColumnValuesToMatchRegex(column=column, **pattern))


def _unique(column: str) -> Expectation:
    return gxe.ExpectColumnValuesToBeUnique(column=column, notes=f"duplicate {column}")


def _not_null(column: str) -> Expectation:
    return gxe.ExpectColumnValuesToNotBeNull(column=column, notes=f"null {column}")


def _one_of(column: str, values: list[Any]) -> Expectation:
    *names, last = map(str, values)
    notes = f"invalid {column}, not {', '.join(names)} or {last}"
    return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=values, notes=notes)


def _between(column: str, low: int, high: int | None = None) -> Expectation:
    limits = f"less than {low}" if high is None else f"not from {low} to {high}"
    return gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=low, max_value=high, notes=f"invalid {column}, {limits}"
    )


def _at_most(column: str, high: float, notes: str, *rejections: Rejection) -> Expectation:
    """Expect one figure about all tables to be at most `high`."""
    meta = {REJECTIONS: [str(reason) for reason in rejections]}
    return gxe.ExpectColumnMaxToBeBetween(column=column, max_value=high, notes=notes, meta=meta)
