"""Reads a source into the run's tables: order lines joined, and all that did not fit counted."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from grocer import progress as console
from grocer.config.stages import DataConfig
from grocer.errors import TableError
from grocer.ingest.duckdb_session import Database
from grocer.ingest.duplicates import repeats
from grocer.ingest.order_lines import WHOLE, Join
from grocer.ingest.readers import check_text, select
from grocer.ingest.schema import AISLES, DEPARTMENTS, LINES, ORDERS, PRODUCTS, TABLES, check_shape
from grocer.ingest.single_table import stage_catalogue
from grocer.ingest.source import CATALOGUE, open_source
from grocer.io.atomic import write_json

Counts = dict[str, Any]
_DIMENSIONS = (PRODUCTS, DEPARTMENTS, AISLES)


def ingest(source: str, config: DataConfig, out: Path) -> Counts:
    """Read `source` and write the tables and `counts.json` into the directory `out`.

    Of order lines, `read == joined + orphans` (their product or order is unknown), and
    `kept == joined - with_nulls` where rows with a null are dropped, else `kept == joined`.

    Raises:
        SourceError, TableError: the source can't be read as its schema says.
        OutputError: no space is left.
    """
    scratch = out / ".scratch"
    scratch.mkdir()
    own = config.columns is not None
    try:
        with open_source(source, scratch, own) as files, Database(scratch, config) as database:
            if config.columns:
                stage_catalogue(database, files[CATALOGUE], config.columns)
            else:
                check_shape(files, source)
                _stage(database, files)
            there = _complete(database)
            counts = _write(database, config.drop_rows_with_null, there, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_json(out / "counts.json", counts)
    return counts


def _stage(database: Database, files: Mapping[str, Path]) -> None:
    """Read each file into a DuckDB table of its own."""
    for name, path in files.items():
        optional = () if AISLES.name in files else ("aisle_id",)
        query = select(path, TABLES[name].columns, path.name, optional)
        if name in LINES:
            try:
                database.park(name, query, path.name)
            except TableError:
                if path.suffix == ".csv":
                    check_text(path, path.name)  # a wrong byte is the better explanation
                raise
        else:
            database.run(f"CREATE TABLE {name} AS {query}", path.name)


def _complete(database: Database) -> set[str]:
    """Say what was staged, and stage the rest empty; returns the names of those that are there.

    Raises:
        TableError: a table without rows.
    """
    there = {row[0] for row in database.run("SELECT table_name FROM information_schema.tables")}
    for name, table in TABLES.items():
        if name not in there:
            columns = ", ".join(f"{key} {kind}" for key, kind in table.columns.items())
            database.run(f"CREATE TABLE {name} ({columns})")
            continue
        rows = database.number(f"SELECT count(*) FROM {name}")
        console.say("ingest", f"{name}: {rows:,} rows")
        if not rows:
            raise TableError(f"{name} is empty: there are column names but no rows below them")
    return there


def _write(
    database: Database, drop_rows_with_null: bool, there: Collection[str], out: Path
) -> Counts:
    """Join the staged tables, write the Parquet files, and count."""
    duplicates = {
        table.name: repeats(database, table.name, table.key) for table in (*_DIMENSIONS, ORDERS)
    }
    database.run("CREATE VIEW lines AS " + " UNION ALL ".join(f"FROM {name}" for name in LINES))
    join = Join(database, duplicates, has_orders=ORDERS.name in there)
    written = join.write(out / "order_lines.parquet", drop_rows_with_null)
    join.tally(written, drop_rows_with_null)
    duplicates["order_lines"] = repeats(database, "lines", ("order_id", "product_id"))
    lines = _count_lines(database, drop_rows_with_null)
    join.write_rejected(out / "rejected.parquet")
    _write_dimensions(database, drop_rows_with_null, there, out)
    return {
        "order_lines": lines,
        **{table.name: _rows(database, table.name) for table in _DIMENSIONS},
        "orphans": _count_orphans(database, there),
        "nulls": join.nulls(),
        "duplicates": duplicates,
        "notes": _notes(there),
    }


def _rows(database: Database, table: str) -> int:
    return database.number(f"SELECT count(*) FROM {table}")


def _count_lines(database: Database, drop_rows_with_null: bool) -> dict[str, int]:
    read = database.number("SELECT coalesce(sum(n), 0) FROM tally")
    joined = database.number("SELECT coalesce(sum(n), 0) FROM joined")
    whole = database.number(f"SELECT coalesce(sum(n), 0) FROM joined WHERE {WHOLE}")
    return {
        "read": read,
        "orphans": read - joined,
        "joined": joined,
        "with_nulls": joined - whole,
        "kept": whole if drop_rows_with_null else joined,
    }


def _write_dimensions(
    database: Database, drop_rows_with_null: bool, there: Collection[str], out: Path
) -> None:
    """Write products with their department, aisle and purchases, and both dimension tables."""
    where = f"WHERE {WHOLE}" if drop_rows_with_null else ""
    purchases = "1"
    if CATALOGUE in there:
        purchases = "p.purchases"
    elif _has_lines(there):
        purchases = "coalesce(b.n, 0)"
    products = (
        "SELECT p.product_id, p.product_name, p.aisle_id, aisle, p.department_id, department, "
        f"({purchases})::BIGINT AS purchases FROM products p "
        "LEFT JOIN aisles_once USING (aisle_id) LEFT JOIN departments_once USING (department_id) "
        f"LEFT JOIN (SELECT product_id, sum(n) AS n FROM joined {where} GROUP BY ALL) b "
        "USING (product_id) ORDER BY p.rowid"
    )
    with database.in_order():
        database.write(products, out / "products.parquet", PRODUCTS.name)
        for table in (AISLES, DEPARTMENTS):
            query = f"SELECT * FROM {table.name}"
            database.write(query, out / f"{table.name}.parquet", table.name)


def _count_orphans(database: Database, there: Collection[str]) -> dict[str, int]:
    """Rows that point to a row which is not there."""
    missing = "SELECT count(*) FROM products p ANTI JOIN {0} d ON p.{1} = d.{1}"
    lost = "SELECT coalesce(sum(n), 0) FROM tally WHERE {} IS NULL"
    aisles = missing.format("aisles", "aisle_id") if AISLES.name in there else "SELECT 0"
    return {
        "products_without_department": database.number(
            missing.format("departments", "department_id")
        ),
        "products_without_aisle": database.number(aisles),
        "order_lines_without_product": database.number(lost.format("item_nulls")),
        "order_lines_without_order": database.number(lost.format("order_nulls")),
    }


def _has_lines(there: Collection[str]) -> bool:
    return any(name in there for name in LINES)


def _notes(there: Collection[str]) -> list[str]:
    """What the source does not have, and what follows from that."""
    notes = []
    if CATALOGUE in there:
        notes.append("a catalogue of the shop's own: one table, no order lines")
    elif not _has_lines(there):
        notes.append("no order lines: every product counts as bought once")
    elif ORDERS.name not in there:
        notes.append("no orders: order lines stand without user, day and hour")
    if AISLES.name not in there:
        notes.append("no aisles: products stand without one")
    for note in notes:
        console.say("ingest", note)
    return notes
