"""What is validated: the ingested tables as frames, batch by batch where they are large."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from grocer.config.run import RunConfig
from grocer.dataset.catalogue import require_aisles
from grocer.validation import suites as expectations
from grocer.validation.suites import Expectation

TOTALS, ORDER_LINES = "totals", "order_lines"
BATCH_ROWS = 1_000_000


@dataclass(frozen=True)
class Subject:
    """A table, its rows in frames of up to `BATCH_ROWS`, and what is expected of them."""

    name: str
    rows: int
    batches: Callable[[], Iterator[pd.DataFrame]]
    expectations: Sequence[Expectation]


def subjects(tables: Path, counts: dict[str, Any], config: RunConfig) -> list[Subject]:
    """The totals, the dimensions and the order lines that `ingest` wrote to `tables`.

    Raises:
        CatalogueError: the configuration wants aisles, and no product has one.
    """
    departments = pd.read_parquet(tables / "departments.parquet")
    aisles = pd.read_parquet(tables / "aisles.parquet")
    products = pd.read_parquet(tables / "products.parquet")
    require_aisles(products, config)
    has_lines = counts["order_lines"]["read"] > 0
    found = [
        _whole(TOTALS, _totals(products, counts, config), expectations.totals(config, has_lines)),
        _whole("departments", departments, expectations.departments()),
        _whole("products", products, expectations.products(config, len(aisles) > 0)),
    ]
    if len(aisles):
        spread = products.groupby("aisle_id")["department"].nunique()
        aisles["departments"] = aisles["aisle_id"].map(spread).fillna(0).astype("int64")
        named = ~aisles["aisle"].isin(config.catalogue.unlabelled)
        aisles["departments"] = aisles["departments"].where(named, 0)
        found.append(_whole("aisles", aisles, expectations.aisles()))
    if has_lines:
        found.append(_order_lines(tables / "order_lines.parquet"))
    return found


def _whole(name: str, frame: pd.DataFrame, checks: Sequence[Expectation]) -> Subject:
    return Subject(name, len(frame), lambda: iter([frame]), checks)


def _order_lines(path: Path) -> Subject:
    """The joined lines: only the columns that are checked, a million rows at a time."""
    # Without orders.csv there is no such column, and pyarrow wants to know each that is named.
    texts = {"eval_set"} & set(pq.read_schema(path).names)
    # A buffer ahead of what is read would grow with the file.
    file = pq.ParquetFile(path, read_dictionary=sorted(texts), pre_buffer=False)
    checks = expectations.order_lines(with_orders="user_id" in file.schema_arrow.names)
    columns = list(dict.fromkeys(check.column for check in checks))

    def batches() -> Iterator[pd.DataFrame]:
        if not file.metadata.num_rows:
            yield file.read(columns=columns).to_pandas()
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            yield batch.to_pandas()

    return Subject(ORDER_LINES, file.metadata.num_rows, batches, checks)


def _totals(products: pd.DataFrame, counts: dict[str, Any], config: RunConfig) -> pd.DataFrame:
    """One row of figures about the whole."""
    label = products[config.catalogue.label].dropna()
    labelled = label[~label.isin(config.catalogue.unlabelled)]
    lines = counts["order_lines"]
    row = {
        "labelled_products": len(labelled),
        "labels": labelled.nunique(),
        "null_fraction": lines["with_nulls"] / max(lines["joined"], 1),
        "orphan_fraction": lines["orphans"] / max(lines["read"], 1),
        "repeated_lines": counts["duplicates"]["order_lines"],
        "repeated_orders": counts["duplicates"]["orders"],
    }
    return pd.DataFrame([row])
