"""Data assets to validate: the ingested tables as data frames, in batches where they are large."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.parquet as pq
from great_expectations.expectations import ExpectColumnValuesToBeBetween

from grocer.artifacts.counts import Counts
from grocer.config.run import RunConfig
from grocer.dataset.catalogue import require_aisles
from grocer.ingest.corrections import UNCORRECTED
from grocer.ingest.spark import read_parquet
from grocer.validation import suites
from grocer.validation.suites import Expectation

if TYPE_CHECKING:
    from pyspark.sql import DataFrame as SparkFrame

TOTALS, ORDER_LINES = "totals", "order_lines"
BATCH_ROWS = 750_000


@dataclass(frozen=True)
class Asset:
    """A table, its rows as one or more data frames, and its expectations.

    `spark` returns all rows as a Spark data frame; None: they are checked batch by batch.
    """

    name: str
    rows: int
    batches: Callable[[], Iterator[pd.DataFrame]]
    expectations: Sequence[Expectation]
    spark: Callable[[], SparkFrame] | None = None


def data_assets(counts: Counts, config: RunConfig) -> list[Asset]:
    """Return the totals, the dimension tables and the order lines beside `counts`.

    Raises:
        CatalogueError: the configuration needs aisles, and no product has one.
    """
    tables = counts.directory
    departments = pd.read_parquet(tables / "departments.parquet")
    aisles = pd.read_parquet(tables / "aisles.parquet")
    products = pd.read_parquet(tables / "products.parquet")
    require_aisles(products, config)
    has_lines = counts.order_lines.read > 0
    assets = [
        _in_memory(TOTALS, _totals(products, counts, config), suites.totals(config, has_lines)),
        _in_memory("departments", departments, suites.departments()),
        _in_memory("products", products, suites.products(config, with_aisles=len(aisles) > 0)),
    ]
    if len(aisles):
        departments_of = _as_in_source(products, config).groupby("aisle_id")["department"].nunique()
        aisles["departments"] = aisles["aisle_id"].map(departments_of).fillna(0).astype("int64")
        is_label = ~aisles["aisle"].isin(config.catalogue.unlabelled)
        aisles["departments"] = aisles["departments"].where(is_label, 0)
        assets.append(_in_memory("aisles", aisles, suites.aisles()))
    if has_lines:
        in_spark = config.data.engine == "spark"
        assets.append(_order_lines(tables / "order_lines.parquet", in_spark))
    return assets


def _as_in_source(products: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
    """Return the products whose label was not corrected: the others keep their old aisle."""
    if UNCORRECTED not in products:
        return products
    label = products[config.catalogue.label]
    return products[label.isna() | (label == products[UNCORRECTED])]


def _in_memory(name: str, frame: pd.DataFrame, suite: Sequence[Expectation]) -> Asset:
    return Asset(name, len(frame), lambda: iter([frame]), suite)


def _order_lines(path: Path, in_spark: bool) -> Asset:
    """Return the joined lines, with only the columns that are checked.

    `path` is a file of DuckDB, or a directory with files of Spark.
    """
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    # pyarrow rejects names of dictionary columns that do not exist, as without orders.csv.
    dictionaries = {"eval_set"} & set(pq.read_schema(paths[0]).names)
    # With pre_buffer, memory would grow with the file.
    files = [
        pq.ParquetFile(each, read_dictionary=sorted(dictionaries), pre_buffer=False)
        for each in paths
    ]
    suite = suites.order_lines(with_orders="user_id" in files[0].schema_arrow.names)
    columns = list(dict.fromkeys(expectation.column for expectation in suite))
    rows = sum(file.metadata.num_rows for file in files)

    def batches() -> Iterator[pd.DataFrame]:
        if not rows:
            yield files[0].read(columns=columns).to_pandas()
        for file in files:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                yield _widen(batch.to_pandas(), suite)

    spark = partial(read_parquet, path, columns) if in_spark and path.is_dir() else None
    return Asset(ORDER_LINES, rows, batches, suite, spark)


def _widen(frame: pd.DataFrame, suite: Sequence[Expectation]) -> pd.DataFrame:
    """Convert columns with limits to 64 bits.

    Great Expectations compares values of other types one by one, which takes four times as long.
    """
    limited = [item.column for item in suite if isinstance(item, ExpectColumnValuesToBeBetween)]
    kinds = {"i": "int64", "f": "float64"}
    return frame.astype({name: kinds[frame[name].dtype.kind] for name in limited})


def _totals(products: pd.DataFrame, counts: Counts, config: RunConfig) -> pd.DataFrame:
    """Return one row of figures about all tables."""
    label = products[config.catalogue.label].dropna()
    labelled = label[~label.isin(config.catalogue.unlabelled)]
    lines = counts.order_lines
    row = {
        "labelled_products": len(labelled),
        "labels": labelled.nunique(),
        "null_fraction": lines.with_nulls / max(lines.joined, 1),
        "orphan_fraction": lines.orphans / max(lines.read, 1),
        "duplicate_lines": counts.duplicates["order_lines"],
        "duplicate_orders": counts.duplicates["orders"],
    }
    return pd.DataFrame([row])
