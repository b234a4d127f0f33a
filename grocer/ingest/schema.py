"""The tables that are read, their columns, and which of them make a whole source."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from grocer.errors import SourceError, TableError


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the Instacart schema: its columns with DuckDB's types, and its unique key."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]


AISLES = Table(name="aisles", columns={"aisle_id": "BIGINT", "aisle": "VARCHAR"}, key=("aisle_id",))
DEPARTMENTS = Table(
    name="departments",
    columns={"department_id": "BIGINT", "department": "VARCHAR"},
    key=("department_id",),
)
PRODUCTS = Table(
    name="products",
    columns={
        "product_id": "BIGINT",
        "product_name": "VARCHAR",
        "aisle_id": "BIGINT",
        "department_id": "BIGINT",
    },
    key=("product_id",),
)
# Days are a float since the original writes them as 7.0; small ranges stay wide enough that a
# value out of range reaches the expectations instead of ending the reader.
ORDERS = Table(
    name="orders",
    columns={
        "order_id": "BIGINT",
        "user_id": "BIGINT",
        "eval_set": "VARCHAR",
        "order_number": "SMALLINT",
        "order_dow": "SMALLINT",
        "order_hour_of_day": "SMALLINT",
        "days_since_prior_order": "FLOAT",
    },
    key=("order_id",),
)
_LINE_COLUMNS = {
    "order_id": "BIGINT",
    "product_id": "BIGINT",
    "add_to_cart_order": "SMALLINT",
    "reordered": "SMALLINT",
}
PRIOR = Table(name="order_products__prior", columns=_LINE_COLUMNS, key=("order_id", "product_id"))
TRAIN = Table(name="order_products__train", columns=_LINE_COLUMNS, key=("order_id", "product_id"))

TABLES = {t.name: t for t in (PRODUCTS, DEPARTMENTS, AISLES, ORDERS, PRIOR, TRAIN)}
LINES = (PRIOR.name, TRAIN.name)


def check_shape(found: Collection[str], source: str) -> None:
    """Accept the six files; the catalogue with order lines but no orders; the catalogue alone.

    Raises:
        SourceError: a table that the others need is not there.
    """
    if not found:
        raise SourceError(
            f"{source}: none of {', '.join(TABLES)} is there as .csv or .parquet; point --data "
            "at a folder or zip with Instacart's files, or name the columns of a catalogue of "
            "your own with --set data.columns.product_name=... data.columns.department=..."
        )
    lines = [name for name in LINES if name in found]
    needed = [PRODUCTS.name, DEPARTMENTS.name]
    if lines or ORDERS.name in found:
        needed.append(AISLES.name)
    if ORDERS.name in found:
        needed.extend(LINES)
    for name in needed:
        if name not in found:
            there = ", ".join(sorted(found))
            raise SourceError(
                f"{source}: {name}.csv (or .parquet) is missing; there are: {there}; add it, or "
                "leave out what needs it (orders need both order_products files, order lines "
                "need products, aisles and departments)"
            )


def csv_header(path: Path, source: str) -> list[str]:
    """The column names of a CSV file (UTF-8, with or without BOM).

    Raises:
        TableError: the file is empty, or its first line names a column twice.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    names = [name.strip() for name in header]
    if not any(names):
        raise TableError(f"{source} is empty: expected a line of column names and rows below it")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TableError(f"{source}: column {twice[0]!r} appears twice in the header")
    return names


def require_columns(needed: Iterable[str], there: Collection[str], source: str) -> None:
    """Check that the columns are there.

    Raises:
        TableError: names the missing column, the nearest name there is, and all there are.
    """
    needed = list(needed)
    spare = [name for name in there if name not in needed]
    for column in needed:
        if column not in there:
            near = get_close_matches(column, spare, n=1, cutoff=0.4)
            hint = f"did you rename {near[0]!r}? " if near else ""
            raise TableError(
                f"{source}: column {column!r} is missing; {hint}there are: {', '.join(there)}"
            )
