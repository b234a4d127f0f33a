"""Join order lines to products and orders, and count the lines that don't match."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from grocer.artifacts.counts import OrderLineCounts
from grocer.ingest.duckdb_session import Database
from grocer.ingest.schema import AISLES, DEPARTMENTS, ORDERS, PRIOR, PRODUCTS, Rejection
from grocer.ingest.spark import Engine, Spark
from grocer.ingest.statements import statements

PRODUCT_COLUMNS = {"product_name": PRODUCTS, "aisle": AISLES, "department": DEPARTMENTS}
ORDER_COLUMNS = tuple(name for name in ORDERS.columns if name != "order_id")
LINE_COLUMNS = tuple(PRIOR.columns)
REJECTED_ROWS = 1_000
WITHOUT_NULLS = "line_nulls = 0 AND product_nulls = 0 AND order_nulls = 0"
_INTEGERS = {"TINYINT": 2**7, "SMALLINT": 2**15, "INTEGER": 2**31, "BIGINT": 2**63}
_SQL = statements("order_lines")


class OrderLines:
    """The order lines of the staged tables; tables that the source lacks are empty."""

    def __init__(
        self, database: Database, log: Engine, duplicates: Mapping[str, int], has_orders: bool
    ) -> None:
        """Create the tables that the view `lines` is joined to.

        `log` has `lines` and the table orders; `database` has the other tables, and gets the
        counts. `duplicates` is the number of rows with a duplicate key, by table.
        """
        self.database, self.log, self.has_orders = database, log, has_orders
        for table in (AISLES, DEPARTMENTS, PRODUCTS):
            has_duplicates = duplicates[table.name] > 0
            database.run(_SQL.create_deduplicated(table.name, table.key[0], has_duplicates))
        types = {name: database.text_type(name, t.name) for name, t in PRODUCT_COLUMNS.items()}
        database.run(_SQL.create_product_details(types))
        if isinstance(log, Spark):
            log.copy("product_details")
        if has_orders:
            self._create_order_details(duplicates[ORDERS.name] > 0)

    def _create_order_details(self, has_duplicates: bool) -> None:
        self.log.run(_SQL.create_deduplicated(ORDERS.name, "order_id", has_duplicates))
        numbers = {name: type for name, type in ORDERS.columns.items() if type != "VARCHAR"}
        types = narrow_types(self.log, ORDERS.name, numbers)
        types["eval_set"] = self.log.text_type("eval_set", ORDERS.name)
        del types["order_id"]
        self.log.run(_SQL.create_order_details(types))

    @property
    def columns(self) -> Sequence[str]:
        """Columns of `order_lines.parquet`, in order."""
        columns = ("order_id", "product_id", *PRODUCT_COLUMNS, "add_to_cart_order", "reordered")
        return (*columns, *ORDER_COLUMNS) if self.has_orders else columns

    def write(self, path: Path) -> int:
        """Write the joined lines that have no null, as in the reference study.

        All threads write, so the order of row groups varies between runs. Keys are joined in
        the narrowest types, because the hash table of orders takes most of the memory. Returns
        the number of lines written.
        """
        types = narrow_types(self.log, "lines", PRIOR.columns)
        orders = ORDER_COLUMNS if self.has_orders else ()
        query = _SQL.join(self.columns, types, PRODUCT_COLUMNS, orders)
        return self.log.write(query, path, "joining order lines")

    def count(self, written: int) -> OrderLineCounts:
        """Count all lines in the table `tally`, by product and null values.

        `tally` has the columns product_id, line_nulls, order_nulls, product_nulls and n (lines).
        A mask has bit i set where the i-th column is null, and is null if the product or order is
        unknown. Most lines have an order without nulls: only the others are joined to orders,
        which is a third faster. Lines of an unknown order are searched for only if `written`,
        what `write` returned, shows that there are some.
        """
        label = "counting order lines"
        self.log.create_table("all_counts", _SQL.all_counts(LINE_COLUMNS), label)
        query = _SQL.null_order_counts(LINE_COLUMNS, ORDER_COLUMNS, self.has_orders)
        self.log.create_table("null_order_counts", query, label)
        read = self.count_lines("all_counts")
        if self.has_orders and written + self.count_lines("null_order_counts") != read:
            self.log.insert("null_order_counts", _SQL.lines_without_order(LINE_COLUMNS), label)
        self.database.run(_SQL.create_tally())
        self.database.run(_SQL.create_joined())
        joined, complete = self.count_lines("joined"), self.count_lines("joined", WITHOUT_NULLS)
        return OrderLineCounts(
            read=read,
            orphans=read - joined,
            joined=joined,
            with_nulls=joined - complete,
            kept=complete,
        )

    def count_nulls(self) -> dict[str, int]:
        """Return the number of joined lines with a null, by column."""
        masks = {"line_nulls": LINE_COLUMNS, "product_nulls": tuple(PRODUCT_COLUMNS)}
        if self.has_orders:
            masks["order_nulls"] = ORDER_COLUMNS
        bits = {name: (mask, i) for mask in masks for i, name in enumerate(masks[mask])}
        [counts] = self.database.run(_SQL.null_counts([bits[column] for column in self.columns]))
        return dict(zip(self.columns, counts, strict=True))

    def write_rejected(self, path: Path, duplicates: Mapping[str, int]) -> None:
        """Write up to `REJECTED_ROWS` rows for each reason to reject rows, if there are any.

        Lines with a duplicate key are listed, though the joined lines contain them.
        """
        lines = {}
        if self.count_lines("tally", "product_nulls IS NULL"):
            lines[Rejection.UNKNOWN_PRODUCT] = _SQL.with_unknown_product(self.has_orders)
        if self.count_lines("tally", "order_nulls IS NULL"):
            lines[Rejection.UNKNOWN_ORDER] = _SQL.with_unknown_order()
        if self.count_lines("tally", "line_nulls + product_nulls > 0"):
            lines[Rejection.NULL_VALUE] = _SQL.with_null(self.columns, self.has_orders)
        elif self.count_lines("tally", "order_nulls > 0"):
            lines[Rejection.NULL_VALUE] = _SQL.with_null_in_order(ORDER_COLUMNS)
        if duplicates["order_lines"]:
            lines[Rejection.DUPLICATE_LINE] = _SQL.with_duplicate_key(self.has_orders)
        if duplicates["orders"]:
            lines[Rejection.DUPLICATE_ORDER] = _SQL.with_duplicate_order()
        if not lines:
            return
        label = "rejected order lines"
        empty = _SQL.rejected("", self.columns, _SQL.all_lines(self.has_orders), 0)
        self.log.create_table("rejected", empty, label)
        with self.database.single_thread():
            for reason, source in lines.items():
                is_order = reason == Rejection.DUPLICATE_ORDER
                columns = ORDERS.columns if is_order else self.columns
                query = _SQL.rejected(reason, columns, source, REJECTED_ROWS)
                self.log.insert("rejected", query, label)
            self.database.write("SELECT * FROM rejected", path, label)

    def count_lines(self, table: str, condition: str = "true") -> int:
        """Return the number of lines in a table of counts, such as `tally`."""
        return self.database.number(_SQL.sum_lines(table, condition))


def narrow_types(engine: Engine, table: str, columns: Mapping[str, str]) -> dict[str, str]:
    """Return the narrowest type of each column of numbers that holds all its values exactly."""
    [ranges] = engine.run(_SQL.value_ranges(table, columns))
    types = {}
    for index, column in enumerate(columns):
        low, high, is_whole = ranges[3 * index : 3 * index + 3]
        empty = low is None
        fits = (name for name, limit in _INTEGERS.items() if empty or -limit <= low <= high < limit)
        types[column] = next(fits) if empty or is_whole else "FLOAT"
    return types
