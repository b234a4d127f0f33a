"""Read a source, join its order lines, and write the tables that later stages use."""

from __future__ import annotations

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
from grocer.ingest.readers import check_text, select
from grocer.ingest.schema import AISLES, DEPARTMENTS, LINES, ORDERS, PRODUCTS, TABLES, check_shape
from grocer.ingest.single_table import stage_catalogue
from grocer.ingest.source import CATALOGUE, open_source
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
            if config.columns:
                stage_catalogue(database, files[CATALOGUE], config.columns)
            else:
                check_shape(files, data)
                _stage(database, files)
            counts = _write(database, _complete(database), out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if config.corrections is not None:
        corrections = correct_products(config.corrections, out, label)
        counts = counts.model_copy(update={"corrections": corrections})
    counts.write(out)
    return counts


def _stage(database: Database, files: Mapping[str, Path]) -> None:
    """Read each file into a DuckDB table."""
    for name, path in files.items():
        optional = () if AISLES.name in files else ("aisle_id",)
        query = select(path, TABLES[name].columns, path.name, optional)
        if name not in LINES:
            database.run(_SQL.create_from(name, query), path.name)
            continue
        try:
            database.create_view(name, query, path.name)
        except TableError:
            if path.suffix == ".csv":
                check_text(path, path.name)  # explains invalid UTF-8 better than the reader
            raise


def _complete(database: Database) -> set[str]:
    """Create an empty table for each one that the source lacks; return the names of the others.

    Raises:
        TableError: a table of the source has no rows.
    """
    staged = {row[0] for row in database.run("SELECT table_name FROM information_schema.tables")}
    for name, table in TABLES.items():
        if name not in staged:
            database.run(_SQL.create_empty(name, table.columns))
            continue
        rows = database.number(f"SELECT count(*) FROM {name}")
        progress.say("ingest", f"{name}: {rows:,} rows")
        if not rows:
            raise TableError(f"{name} is empty: expected rows below the column names")
    return staged


def _write(database: Database, staged: Collection[str], out: Path) -> Counts:
    """Join the staged tables, write the Parquet files, and return the counts."""
    duplicates = {
        table.name: count_duplicates(database, table.name, table.key)
        for table in (*_DIMENSIONS, ORDERS)
    }
    database.run(_SQL.create_lines(LINES))
    lines = OrderLines(database, duplicates, has_orders=ORDERS.name in staged)
    written = lines.write(out / "order_lines.parquet")
    line_counts = lines.count(written)
    duplicates["order_lines"] = count_duplicates(database, "lines", ("order_id", "product_id"))
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
