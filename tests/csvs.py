"""Small tables of Instacart's schema, written as tests need them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Table = list[list[Any]]

ORDERS_HEADER = [
    "order_id",
    "user_id",
    "eval_set",
    "order_number",
    "order_dow",
    "order_hour_of_day",
    "days_since_prior_order",
]
LINES_HEADER = ["order_id", "product_id", "add_to_cart_order", "reordered"]


def tables() -> dict[str, Table]:
    """Six small tables: 7 order lines, 2 of a first order, so with a null."""
    return {
        "aisles": [["aisle_id", "aisle"], [1, "fresh fruits"], [2, "milk"], [3, "missing"]],
        "departments": [
            ["department_id", "department"],
            [4, "produce"],
            [16, "dairy eggs"],
            [21, "missing"],
        ],
        "products": [
            ["product_id", "product_name", "aisle_id", "department_id"],
            [1, "Organic Bananas", 1, 4],
            [2, "Whole Milk", 2, 16],
            [3, "Mystery Box", 3, 21],
            [4, "Never Bought Plums", 1, 4],
        ],
        "orders": [
            ORDERS_HEADER,
            [10, 1, "prior", 1, 2, "08", ""],
            [11, 1, "prior", 2, 0, "23", "7.0"],
            [12, 1, "train", 3, 6, "00", "30.0"],
        ],
        "order_products__prior": [
            LINES_HEADER,
            [10, 1, 1, 0],
            [10, 2, 2, 0],
            [11, 1, 1, 1],
            [11, 2, 2, 1],
            [11, 3, 3, 0],
        ],
        "order_products__train": [LINES_HEADER, [12, 1, 1, 1], [12, 2, 2, 1]],
    }


def write_csvs(folder: Path, content: Mapping[str, Sequence[Sequence[Any]]]) -> Path:
    """Write each table as `NAME.csv`; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in content.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    return folder
