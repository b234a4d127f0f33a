"""Tables of the Instacart schema, their columns, and the combinations of tables accepted."""

import csv
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

from grocer.errors import SourceError, TableError
from grocer.io.tables import missing_column


class Rejection(StrEnum):
    """Why a row is in `rejected.parquet`."""

    UNKNOWN_PRODUCT = "unknown product_id"
    UNKNOWN_ORDER = "unknown order_id"
    NULL_VALUE = "null value"
    DUPLICATE_LINE = "duplicate order line"
    DUPLICATE_ORDER = "duplicate order_id"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: its columns with DuckDB's types, and its unique key."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]


_ID, _TEXT, _SMALL = "BIGINT", "VARCHAR", "SMALLINT"
AISLES = Table(name="aisles", columns={"aisle_id": _ID, "aisle": _TEXT}, key=("aisle_id",))
DEPARTMENTS = Table(
    name="departments", columns={"department_id": _ID, "department": _TEXT}, key=("department_id",)
)
PRODUCTS = Table(
    name="products",
    columns={"product_id": _ID, "product_name": _TEXT, "aisle_id": _ID, "department_id": _ID},
    key=("product_id",),
)
# Instacart's file has days such as 7.0, so their type is FLOAT. The other types are wider than the
# valid range, so that an invalid value fails validation instead of the reader.
ORDERS = Table(
    name="orders",
    columns={
        "order_id": _ID,
        "user_id": _ID,
        "eval_set": _TEXT,
        "order_number": _SMALL,
        "order_dow": _SMALL,
        "order_hour_of_day": _SMALL,
        "days_since_prior_order": "FLOAT",
    },
    key=("order_id",),
)
_LINES = {"order_id": _ID, "product_id": _ID, "add_to_cart_order": _SMALL, "reordered": _SMALL}
PRIOR = Table(name="order_products__prior", columns=_LINES, key=("order_id", "product_id"))
TRAIN = Table(name="order_products__train", columns=_LINES, key=("order_id", "product_id"))
ORDER_PRODUCTS = Table(name="order_products", columns=_LINES, key=("order_id", "product_id"))

TABLES = {t.name: t for t in (PRODUCTS, DEPARTMENTS, AISLES, ORDERS, ORDER_PRODUCTS, PRIOR, TRAIN)}
LINES = (ORDER_PRODUCTS.name, PRIOR.name, TRAIN.name)
ORDER_LOG = (ORDERS.name, *LINES)
"""The large tables, which the engine of `data.engine` reads and joins; they may have partitions."""

_NAME_COLUMNS = (
    "name its columns with --set data.columns.product_name=... --set data.columns.department=..."
)


def check_shape(tables: Collection[str], source: str) -> None:
    """Check that the tables are an accepted combination: all, all but orders, or products alone.

    Raises:
        SourceError: a table is missing that others need.
    """
    if not tables:
        raise SourceError(
            f"{source}: none of {', '.join(TABLES)} found as .csv or .parquet; point --data at a "
            f"directory or zip with Instacart's files; for a table of your own, {_NAME_COLUMNS}"
        )
    required = [PRODUCTS.name, DEPARTMENTS.name]
    if ORDERS.name in tables or any(name in tables for name in LINES):
        required.append(AISLES.name)
    if ORDERS.name in tables and ORDER_PRODUCTS.name not in tables:
        required.extend((PRIOR.name, TRAIN.name))
    for name in required:
        if name not in tables:
            found = ", ".join(sorted(tables))
            raise SourceError(
                f"{source}: {name}.csv (or .parquet) is missing; found {found}; add it, "
                "or remove the tables that need it (orders need order_products or both "
                "of Instacart's files; order lines need products, aisles and departments)"
                + ("" if len(tables) > 1 else f"; for a table of your own, {_NAME_COLUMNS}")
            )


def csv_header(path: Path, source: str) -> list[str]:
    """Return the column names of a CSV file (UTF-8, with or without BOM).

    Columns without a name, which spreadsheets add, are named by their position.

    Raises:
        TableError: the file is empty, or its header has a duplicate column.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    if not any(name.strip() for name in header):
        raise TableError(f"{source} is empty: expected a header and rows")
    names = [name.strip() or f"column {number}" for number, name in enumerate(header, 1)]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise TableError(f"{source}: duplicate column {duplicates[0]!r} in the header; rename it")
    return names


def require_columns(required: Iterable[str], columns: Collection[str], source: str) -> None:
    """Check that all required columns exist.

    Raises:
        TableError: gives the missing column, the nearest existing name, and all existing names.
    """
    required = list(required)
    others = [name for name in columns if name not in required]
    for column in required:
        if column not in columns:
            near = get_close_matches(column, others, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            if len(columns) == 1 and set(";\t|") & set("".join(columns)):
                raise missing_column(source, column, list(columns))
            raise TableError(
                f"{source}: column {column!r} is missing; {hint}found {', '.join(columns)}; rename "
                "it, or set the key of data.columns that maps it"
            )
