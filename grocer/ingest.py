"""Joins order lines to orders, products, aisles and departments, and counts what did not fit."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from grocer import console
from grocer.config import DataConfig
from grocer.files import write_json
from grocer.reading import explained, select
from grocer.schema import AISLES, DEPARTMENTS, LINES, ORDERS, PRODUCTS, TABLES, check_shape
from grocer.source import open_source

Counts = dict[str, Any]

PRODUCT_COLUMNS = ("product_name", "aisle", "department")
ORDER_COLUMNS = tuple(name for name in ORDERS.columns if name != "order_id")
LINE_COLUMNS = ("order_id", "product_id", *PRODUCT_COLUMNS, "add_to_cart_order", "reordered")


def ingest(source: str, config: DataConfig, out: Path) -> Counts:
    """Read `source` and write the joined tables and `counts.json` into the directory `out`.

    Every order line is joined, an orphan (its product or its order is unknown), or both counted
    once: `read == joined + orphans` and `joined == kept + with_nulls`.

    Raises:
        SourceError, TableError: the source can't be read as its schema says.
        OutputError: no space is left.
    """
    scratch = out / ".scratch"
    scratch.mkdir()
    try:
        with open_source(source, scratch) as files, _connected(scratch, config) as database:
            check_shape(files, source)
            counts = _Ingest(database, config, files, out).run()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_json(out / "counts.json", counts)
    return counts


@contextmanager
def _connected(scratch: Path, config: DataConfig) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that holds little in memory and spills beside the output."""
    database = duckdb.connect(
        scratch / "tables.duckdb",
        config={
            "memory_limit": f"{config.memory_limit_mb}MiB",
            "threads": config.threads,
            "temp_directory": str(scratch / "spill"),
        },
    )
    try:
        yield database
    finally:
        database.close()


class _Ingest:
    """One ingest: staged tables in DuckDB, then the join, then what it counted."""

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        config: DataConfig,
        files: Mapping[str, Path],
        out: Path,
    ) -> None:
        self.database, self.config, self.files, self.out = database, config, files, out
        self.has_orders = ORDERS.name in files
        self.has_lines = any(name in files for name in LINES)

    def run(self) -> Counts:
        for name in self.files:
            self._stage(name)
        self._stage_empty()
        self._join_dimensions()
        lines, nulls = self._join_lines()
        self._write_dimensions()
        counts = {
            "order_lines": lines,
            "products": self._number("SELECT count(*) FROM products"),
            "departments": self._number("SELECT count(*) FROM departments"),
            "aisles": self._number("SELECT count(*) FROM aisles"),
            "orphans": self._orphans(),
            "nulls": nulls,
            "duplicates": self._duplicates(),
            "notes": self._notes(),
        }
        return counts

    def _stage(self, name: str) -> None:
        """Read one file into a table of its own."""
        path = self.files[name]
        query = select(path, TABLES[name].columns, path.name)
        with self._work(path.name, f"reading {path.name}"):
            self.database.execute(f"CREATE TABLE {name} AS {query}")
        rows = self._number(f"SELECT count(*) FROM {name}")
        console.say("ingest", f"{path.name}: {rows:,} rows")

    def _stage_empty(self) -> None:
        """Stand in for what the source does not have."""
        for name, table in TABLES.items():
            if name not in self.files:
                columns = ", ".join(f"{key} {kind}" for key, kind in table.columns.items())
                self.database.execute(f"CREATE TABLE {name} ({columns})")
        union = " UNION ALL ".join(f"SELECT * FROM {name}" for name in LINES)
        self.database.execute(f"CREATE VIEW lines AS {union}")

    def _join_dimensions(self) -> None:
        """`item`: each product once, with its aisle and department; `purchase`: each order once.

        A key that stands twice would multiply order lines; the first row counts here, and
        validation says so.
        """
        for table in (AISLES, DEPARTMENTS, PRODUCTS, ORDERS):
            key = table.key[0]
            once = (
                f"SELECT * FROM {table.name} "
                f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY rowid) = 1"
            )
            unique = f"SELECT count(*) = count(DISTINCT {key}) FROM {table.name}"
            query = f"SELECT * FROM {table.name}" if self._number(unique) else once
            self.database.execute(f"CREATE VIEW {table.name}_once AS {query}")
        self.database.execute(
            "CREATE TABLE item AS SELECT p.product_id, p.product_name, a.aisle, d.department "
            "FROM products_once p LEFT JOIN aisles_once a USING (aisle_id) "
            "LEFT JOIN departments_once d USING (department_id)"
        )

    def _joined(self, columns: str, where: str) -> str:
        orders = "JOIN orders_once o USING (order_id)" if self.has_orders else ""
        return (
            f"SELECT {columns} FROM lines l JOIN item i USING (product_id) {orders} WHERE {where}"
        )

    def _join_lines(self) -> tuple[Counts, dict[str, int]]:
        """Write `order_lines.parquet`; returns the lines' counts and the nulls by column."""
        columns = [*LINE_COLUMNS, *(ORDER_COLUMNS if self.has_orders else ())]
        whole = " AND ".join(f"{name} IS NOT NULL" for name in columns)
        read = self._number("SELECT count(*) FROM lines")
        sums = ", ".join(f"count(*) FILTER ({name} IS NULL)" for name in columns)
        with self._work("order lines", "counting order lines"):
            query = self._joined(f"count(*), count(*) FILTER ({whole}), {sums}", "true")
            joined, complete, *nulls = self.database.execute(query).fetchall()[0]
        where = whole if self.config.drop_rows_with_null else "true"
        with self._work("order lines", "joining order lines"):
            target = str(self.out / "order_lines.parquet").replace("'", "''")
            query = self._joined(", ".join(columns), where)
            self.database.execute(
                f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
            )
        kept = complete if self.config.drop_rows_with_null else joined
        counts = {
            "read": read,
            "orphans": read - joined,
            "joined": joined,
            "with_nulls": joined - complete,
            "kept": kept,
        }
        return counts, dict(zip(columns, nulls, strict=True))

    def _write_dimensions(self) -> None:
        purchases = "1"
        if self.has_lines:
            path = str(self.out / "order_lines.parquet").replace("'", "''")
            self.database.execute(
                "CREATE TABLE bought AS SELECT product_id, count(*) AS purchases "
                f"FROM read_parquet('{path}') GROUP BY product_id"
            )
            purchases = "coalesce(b.purchases, 0)"
        else:
            self.database.execute("CREATE TABLE bought (product_id BIGINT, purchases BIGINT)")
        products = (
            "SELECT p.product_id, p.product_name, p.aisle_id, a.aisle, p.department_id, "
            f"d.department, {purchases}::BIGINT AS purchases FROM products p "
            "LEFT JOIN aisles_once a USING (aisle_id) "
            "LEFT JOIN departments_once d USING (department_id) "
            "LEFT JOIN bought b USING (product_id) ORDER BY p.rowid"
        )
        for name, query in (
            ("products", products),
            ("aisles", "SELECT * FROM aisles"),
            ("departments", "SELECT * FROM departments"),
        ):
            target = str(self.out / f"{name}.parquet").replace("'", "''")
            with self._work(name, f"writing {name}"):
                self.database.execute(
                    f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
                )

    def _orphans(self) -> dict[str, int]:
        """Rows whose key is in no row of the table it points to."""
        query = "SELECT count(*) FROM {} l WHERE NOT EXISTS (FROM {} r WHERE r.{} = l.{})"
        pairs = [("products", "departments", "department_id")]
        if AISLES.name in self.files:
            pairs.append(("products", "aisles", "aisle_id"))
        if self.has_lines:
            pairs.append(("lines", "products", "product_id"))
        if self.has_lines and self.has_orders:
            pairs.append(("lines", "orders", "order_id"))
        return {
            f"{'order_lines' if table == 'lines' else table}_without_{other[:-1]}": self._number(
                query.format(table, other, key, key)
            )
            for table, other, key in pairs
        }

    def _duplicates(self) -> dict[str, int]:
        """Rows beyond the first of each key."""
        counts = {
            table.name: self._number(
                f"SELECT count(*) - count(DISTINCT {table.key[0]}) FROM {table.name}"
            )
            for table in (PRODUCTS, DEPARTMENTS, AISLES, ORDERS)
        }
        with self._work("order lines", "looking for order lines that stand twice"):
            counts["order_lines"] = self._number(
                "SELECT coalesce(sum(n - 1), 0)::BIGINT FROM "
                "(SELECT count(*) AS n FROM lines GROUP BY order_id, product_id)"
            )
        return counts

    def _notes(self) -> list[str]:
        notes = []
        if not self.has_lines:
            notes.append("no order lines: every product counts as bought once")
        elif not self.has_orders:
            notes.append("no orders.csv: order lines stand without user, day and hour")
        if AISLES.name not in self.files:
            notes.append("no aisles: products stand without an aisle")
        for note in notes:
            console.say("ingest", note)
        return notes

    def _number(self, query: str) -> int:
        row = self.database.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    @contextmanager
    def _work(self, label: str, doing: str) -> Iterator[None]:
        """Explain DuckDB's errors, and say how far a long query has come."""
        done = threading.Event()

        def report() -> None:
            while not done.wait(5.0):
                percent = self.database.query_progress()
                if percent > 0:
                    console.say("ingest", f"{doing}: {percent:.0f} %")

        reporter = threading.Thread(target=report, daemon=True)
        reporter.start()
        try:
            with explained(label, self.config.memory_limit_mb):
                yield
        finally:
            done.set()
            reporter.join()
