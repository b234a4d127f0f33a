"""Read a source, join its order lines, and write the tables that later stages use."""

import shutil
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path

from grocer import progress
from grocer.artifacts.counts import Counts, OrphanCounts
from grocer.config.stages import DataConfig
from grocer.errors import TableError
from grocer.ingest.corrections import correct_products
from grocer.ingest.duckdb_session import Database
from grocer.ingest.duplicates import count_duplicates
from grocer.ingest.order_lines import WITHOUT_NULLS, OrderLines
from grocer.ingest.partitions import PartitionCopies, find_partitions
from grocer.ingest.schema import (
    AISLES,
    DEPARTMENTS,
    LINES,
    ORDER_LOG,
    ORDERS,
    PRODUCTS,
    TABLES,
    check_shape,
)
from grocer.ingest.single_table import stage_catalogue
from grocer.ingest.source import CATALOGUE, open_source
from grocer.ingest.spark import Engine, Spark
from grocer.ingest.statements import statements

_DIMENSIONS = (PRODUCTS, DEPARTMENTS, AISLES)
_SQL = statements("tables")


def run(data: str, config: DataConfig, out: Path, label: str = "department") -> Counts:
    """Read the tables at `data`; write them joined as Parquet, and the counts, to `out`.

    `label` is the column, `department` or `aisle`, that corrections change.

    Writes `order_lines.parquet`, `products.parquet`, `departments.parquet`, `aisles.parquet`,
    `counts.json`, and `rejected.parquet` if rows were rejected.

    Raises:
        SourceError, TableError: the source can't be read, or does not match its schema.
        OutputError: the disk is full.
    """
    scratch = out / ".scratch"
    scratch.mkdir()
    try:
        with (
            open_source(data, scratch, single=config.columns is not None) as files,
            closing(Database(scratch, config)) as database,
        ):
            log: Engine = database
            rows: dict[str, dict[str, int]] = {}
            if config.columns:
                staged = stage_catalogue(database, files[CATALOGUE], config.columns)
            else:
                partitions = find_partitions(data, files)
                staged = {*files, *partitions}
                check_shape(staged, data)
                if config.engine == "spark" and any(name in staged for name in LINES):
                    log = Spark(database)
                _stage(database, log, files)
                rows = PartitionCopies(config.partitions, log, scratch).read(partitions)
            _complete(database, log, staged)
            counts = _write(database, log, staged, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    corrections = correct_products(config.corrections, out, label) if config.corrections else None
    counts = counts.model_copy(update={"partitions": rows, "corrections": corrections})
    counts.write(out)
    return counts


def _stage(database: Database, log: Engine, files: Mapping[str, Path]) -> None:
    """Read each file into a table of its engine."""
    optional = () if AISLES.name in files else ("aisle_id",)
    for name, path in files.items():
        if name in ORDER_LOG:
            log.read(name, path)
        else:
            database.read(name, path, optional)


def _complete(database: Database, log: Engine, staged: Collection[str]) -> None:
    """Create an empty table for each one that the source lacks.

    Raises:
        TableError: a table of the source has no rows.
    """
    for name, table in TABLES.items():
        if name not in staged:
            database.run(_SQL.create_empty(name, table.columns))
            continue
        rows = (log if name in ORDER_LOG else database).number(f"SELECT count(*) FROM {name}")
        progress.say("ingest", f"{name}: {rows:,} rows")
        if not rows:
            raise TableError(f"{name} is empty: expected rows below the column names")


def _write(database: Database, log: Engine, staged: Collection[str], out: Path) -> Counts:
    """Join the staged tables, write the Parquet files, and return the counts."""
    has_orders = ORDERS.name in staged
    duplicates = {
        table.name: count_duplicates(database, table.name, table.key) for table in _DIMENSIONS
    }
    orders = log if has_orders else database
    duplicates[ORDERS.name] = count_duplicates(orders, ORDERS.name, ORDERS.key)
    log.run(_SQL.create_lines([name for name in LINES if name in staged] or LINES))
    lines = OrderLines(database, log, duplicates, has_orders)
    written = lines.write(out / "order_lines.parquet")
    line_counts = lines.count(written)
    duplicates["order_lines"] = count_duplicates(log, "lines", ("order_id", "product_id"))
    lines.write_rejected(out / "rejected.parquet", duplicates)
    _write_dimensions(database, staged, out)
    no_department = _SQL.count_orphan_products(DEPARTMENTS.name, "department_id")
    no_aisle = _SQL.count_orphan_products(AISLES.name, "aisle_id")
    orphans = OrphanCounts(
        products_without_department=database.number(no_department),
        products_without_aisle=database.number(no_aisle) if AISLES.name in staged else 0,
        order_lines_without_product=lines.count_lines("tally", "product_nulls IS NULL"),
        order_lines_without_order=lines.count_lines("tally", "order_nulls IS NULL"),
    )
    rows = {t.name: database.number(f"SELECT count(*) FROM {t.name}") for t in _DIMENSIONS}
    return Counts(
        order_lines=line_counts,
        products=rows[PRODUCTS.name],
        departments=rows[DEPARTMENTS.name],
        aisles=rows[AISLES.name],
        orphans=orphans,
        nulls=lines.count_nulls(),
        duplicates=duplicates,
        notes=_notes(staged),
    )


def _write_dimensions(database: Database, staged: Collection[str], out: Path) -> None:
    """Write products with department, aisle and purchases; departments; and aisles."""
    purchases = "1"
    if CATALOGUE in staged:
        purchases = "p.purchases"
    elif any(name in staged for name in LINES):
        purchases = "coalesce(b.n, 0)"
    products = _SQL.products(purchases, WITHOUT_NULLS)
    with database.single_thread():
        database.write(products, out / "products.parquet", PRODUCTS.name)
        for table in (AISLES, DEPARTMENTS):
            path = out / f"{table.name}.parquet"
            database.write(f"SELECT * FROM {table.name}", path, table.name)


def _notes(staged: Collection[str]) -> tuple[str, ...]:
    """Describe and report what the source lacks, and how that is handled."""
    notes = []
    if CATALOGUE in staged:
        notes.append("single table: no order lines")
    elif not any(name in staged for name in LINES):
        notes.append("no order lines: each product counts as purchased once")
    elif ORDERS.name not in staged:
        notes.append("no orders: order lines have no user, day or hour")
    if AISLES.name not in staged:
        notes.append("no aisles: products have no aisle")
    for note in notes:
        progress.say("ingest", note)
    return tuple(notes)
