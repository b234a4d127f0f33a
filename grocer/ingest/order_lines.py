"""Order lines joined to their products and orders, and the tally of those that don't fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from grocer.ingest.duckdb_session import Database
from grocer.ingest.schema import AISLES, DEPARTMENTS, ORDERS, PRIOR, PRODUCTS, Table

ITEM_COLUMNS = ("product_name", "aisle", "department")
ORDER_COLUMNS = tuple(name for name in ORDERS.columns if name != "order_id")
LINE_COLUMNS = tuple(PRIOR.columns)
REJECTED_ROWS = 1_000
_INTEGERS = {"TINYINT": 2**7, "SMALLINT": 2**15, "INTEGER": 2**31, "BIGINT": 2**63}
WHOLE = "line_nulls = 0 AND item_nulls = 0 AND order_nulls = 0"


class Join:
    """The join of the staged tables; a table that the source lacks is staged empty."""

    def __init__(self, database: Database, repeated: Mapping[str, int], has_orders: bool) -> None:
        """`repeated` counts, by table, the rows whose key stands in it before."""
        self.database, self.repeated, self.has_orders = database, repeated, has_orders
        for table in (AISLES, DEPARTMENTS, PRODUCTS, ORDERS):
            self._once(table, repeated[table.name])
        # Of each table's own texts an enum: numbers in the join, dictionaries in the Parquet file.
        texts = dict(zip(ITEM_COLUMNS, (PRODUCTS, AISLES, DEPARTMENTS), strict=True))
        for column, table in {**texts, "eval_set": ORDERS}.items():
            database.run(
                f"CREATE TYPE {column}_text AS ENUM (SELECT DISTINCT {column} "
                f"FROM {table.name} WHERE {column} IS NOT NULL ORDER BY {column})"
            )
        typed = ", ".join(f"{column}::{column}_text AS {column}" for column in ITEM_COLUMNS)
        database.run(
            f"CREATE TABLE item AS SELECT product_id, {typed}, {_mask(ITEM_COLUMNS)} AS nulls "
            "FROM products_once LEFT JOIN aisles_once USING (aisle_id) "
            "LEFT JOIN departments_once USING (department_id)"
        )
        numbers = {name: kind for name, kind in ORDERS.columns.items() if kind != "VARCHAR"}
        narrow = narrow_types(database, "orders", numbers)
        casts = [f"{name}::{kind} AS {name}" for name, kind in narrow.items() if name != "order_id"]
        database.run(
            f"CREATE VIEW placed AS SELECT order_id, {', '.join(casts)}, "
            "eval_set::eval_set_text AS eval_set FROM orders_once"
        )

    def _once(self, table: Table, repeated: int) -> None:
        """A view of the table with each key once: a key twice would multiply order lines."""
        key = table.key[0]
        first = f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY rowid) = 1"
        self.database.run(
            f"CREATE VIEW {table.name}_once AS SELECT * FROM {table.name} "
            f"WHERE {key} IS NOT NULL {first if repeated else ''}"
        )

    @property
    def columns(self) -> Sequence[str]:
        """Columns of the joined lines, in the file's order."""
        lines = ("order_id", "product_id", *ITEM_COLUMNS, "add_to_cart_order", "reordered")
        return (*lines, *ORDER_COLUMNS) if self.has_orders else lines

    def tally(self, written: int, dropped: bool) -> None:
        """Make the table `tally`: lines (`n`) by product and by which columns are null.

        A mask has one bit a column; it is null itself where no product or order is joined. Most
        lines have an order without nulls, so only the others are joined to orders to be counted,
        which is a third faster; the rest is what remains of all. Lines without an order are
        looked for only where the numbers say that there are some.

        Args:
            written: lines that `write` wrote.
            dropped: whether it left out those with a null.
        """
        counted = f"product_id, {_mask(LINE_COLUMNS, 'l.')} AS line_nulls"
        self.database.run(
            f"CREATE TABLE every AS SELECT {counted}, count(*) AS n FROM lines l GROUP BY ALL",
            "counting order lines",
        )
        apart = f"SELECT {counted}, 0 AS order_nulls, 0 AS n FROM lines l WHERE false"
        if self.has_orders:
            flawed = f"SELECT order_id, {_mask(ORDER_COLUMNS)} AS order_nulls FROM placed"
            apart = (
                f"SELECT {counted}, order_nulls, count(*) AS n FROM lines l "
                f"JOIN ({flawed} WHERE order_nulls > 0) USING (order_id) GROUP BY ALL"
            )
        self.database.run(f"CREATE TABLE apart AS {apart}", "counting order lines")
        if self.has_orders and not self._all_joined(written, dropped):
            self.database.run(
                f"INSERT INTO apart SELECT {counted}, NULL, count(*) FROM lines l "
                "ANTI JOIN placed USING (order_id) GROUP BY ALL",
                "counting order lines",
            )
        self.database.run(
            "CREATE TABLE tally AS SELECT t.*, i.nulls AS item_nulls FROM ("
            "SELECT product_id, line_nulls, order_nulls, n FROM apart UNION ALL "
            "SELECT product_id, line_nulls, 0, sum(n) FROM (FROM every UNION ALL "
            "SELECT product_id, line_nulls, -n FROM apart) GROUP BY ALL HAVING sum(n) > 0"
            ") t LEFT JOIN item i USING (product_id)"
        )
        self.database.run(
            "CREATE VIEW joined AS FROM tally "
            "WHERE item_nulls IS NOT NULL AND order_nulls IS NOT NULL"
        )

    def _all_joined(self, written: int, dropped: bool) -> bool:
        """Whether each line was written, or left out for a null of an order that there is."""
        total = "SELECT coalesce(sum(n), 0) FROM {}"
        left_out = self.database.number(total.format("apart")) if dropped else 0
        return written + left_out == self.database.number(total.format("every"))

    def nulls(self) -> dict[str, int]:
        """Joined lines with a null, by column."""
        masks = {"line_nulls": LINE_COLUMNS, "item_nulls": ITEM_COLUMNS}
        if self.has_orders:
            masks["order_nulls"] = ORDER_COLUMNS
        sums = {
            column: f"coalesce(sum(n) FILTER (({mask} >> {bit}) & 1 = 1), 0)::BIGINT"
            for mask, columns in masks.items()
            for bit, column in enumerate(columns)
        }
        row = self.database.run(
            f"SELECT {', '.join(sums[key] for key in self.columns)} FROM joined"
        )
        return dict(zip(self.columns, row[0], strict=True))

    def write(self, path: Path, drop_rows_with_null: bool) -> int:
        """Write the joined lines, with or without those that have a null; how many it wrote.

        All threads write, so row groups may stand in another order the next time. Keys are
        joined in narrow types: the table of orders is most of the memory, and spills later.
        """
        narrow = narrow_types(self.database, "lines", PRIOR.columns)
        lines = ", ".join(f"{name}::{kind} AS {name}" for name, kind in narrow.items())

        def keyed(table: str, key: str) -> str:
            """The table by a key as narrow as the lines': one that doesn't fit has no line."""
            fitting = f"TRY_CAST({key} AS {narrow[key]})"
            return f"(SELECT * REPLACE ({fitting} AS {key}) FROM {table}) USING ({key})"

        orders = f"JOIN {keyed('placed', 'order_id')}" if self.has_orders else ""
        columns = ", ".join(self.columns)
        whole = " AND ".join(f"{column} IS NOT NULL" for column in self.columns)
        where = f"WHERE {whole}" if drop_rows_with_null else ""
        return self.database.write(
            f"SELECT {columns} FROM (SELECT {lines} FROM lines) "
            f"JOIN {keyed('item', 'product_id')} {orders} {where}",
            path,
            "joining order lines",
        )

    def write_rejected(self, path: Path) -> None:
        """Write up to `REJECTED_ROWS` lines for each reason why lines did not fit, if any.

        Lines that stand twice in their order are kept in the join and listed here too.
        """
        all_lines = "FROM lines LEFT JOIN item i USING (product_id)"
        flawed = f"{all_lines} JOIN placed o USING (order_id)"
        if self.has_orders:
            all_lines += " LEFT JOIN placed o USING (order_id)"
        no_order = "o.order_id IS NULL" if self.has_orders else "false"
        fits = f"i.product_id IS NOT NULL AND NOT {no_order}"
        null = " OR ".join(f"{column} IS NULL" for column in self.columns)
        of_order = " OR ".join(f"o.{column} IS NULL" for column in ORDER_COLUMNS)
        twice = "SELECT order_id, product_id FROM lines GROUP BY ALL HAVING count(*) > 1"
        # Each reason is first looked for in the tally, which is small. Where only orders have
        # nulls, those few are joined alone: no table of all orders is built.
        others = "line_nulls + item_nulls > 0"
        orphans = f"i.product_id IS NOT NULL AND {no_order}"
        reasons = [
            ("no such product", "item_nulls IS NULL", all_lines, "i.product_id IS NULL"),
            ("no such order", "order_nulls IS NULL", all_lines, orphans),
            ("a null", others, all_lines, f"{fits} AND ({null})"),
            (
                "a null",
                f"order_nulls > 0 AND NOT EXISTS (FROM tally WHERE {others})",
                flawed,
                f"{fits} AND ({of_order})",
            ),
            (
                "twice in its order",
                f"{self.repeated['order_lines']} > 0",
                all_lines,
                f"(order_id, product_id) IN ({twice})",
            ),
        ]
        columns = ", ".join(self.columns)
        queries = [
            f"INSERT INTO rejected SELECT '{reason}', {columns} {lines} "
            f"WHERE {where} LIMIT {REJECTED_ROWS}"
            for reason, tallied, lines, where in reasons
            if self.database.number(f"SELECT count(*) FROM tally WHERE {tallied}")
        ]
        if self.repeated["orders"]:
            ids = "SELECT order_id FROM orders GROUP BY ALL HAVING count(*) > 1"
            queries.append(
                "INSERT INTO rejected BY NAME SELECT 'order twice in orders' AS reason, * "
                f"FROM orders WHERE order_id IN ({ids}) LIMIT {REJECTED_ROWS}"
            )
        if not queries:
            return
        self.database.run(
            f"CREATE TABLE rejected AS SELECT ''::VARCHAR AS reason, {columns} {all_lines} LIMIT 0"
        )
        with self.database.in_order():
            for query in queries:
                self.database.run(query, "rejected order lines")
            self.database.write("SELECT * FROM rejected", path, "rejected order lines")


def narrow_types(database: Database, table: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The narrowest type for each column of numbers (by type) that holds all values exactly."""
    looks = ", ".join(
        f"min({column}), max({column}), "
        + (f"bool_and({column} = trunc({column}))" if kind == "FLOAT" else "true")
        for column, kind in columns.items()
    )
    [found] = database.run(f"SELECT {looks} FROM {table}")
    types = {}
    for index, column in enumerate(columns):
        low, high, whole = found[3 * index : 3 * index + 3]
        fitting = (kind for kind, limit in _INTEGERS.items() if -limit <= low and high < limit)
        empty = low is None
        types[column] = "TINYINT" if empty else next(fitting) if whole else "FLOAT"
    return types


def _mask(columns: Sequence[str], prefix: str = "") -> str:
    """SQL for a number with bit i set where the i-th column is null."""
    bits = (f"({prefix}{column} IS NULL)::INT << {bit}" for bit, column in enumerate(columns))
    return " + ".join(f"({bit})" for bit in bits)
