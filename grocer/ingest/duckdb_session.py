"""A DuckDB session with a memory limit, progress reports and one-line errors."""

import os
import re
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from grocer import progress
from grocer.config.stages import DataConfig
from grocer.errors import GrocerError, OutputError, SourceError, TableError
from grocer.ingest.readers import check_text, select
from grocer.ingest.schema import LINES, TABLES
from grocer.ingest.statements import statements

PROGRESS_SECONDS = 5.0
MIB_PER_THREAD = 200  # of the memory limit, to join tables of Instacart's size
_READER_ERRORS = {
    "unterminated quote": "a quoted field is not closed, or text follows its closing quote; "
    'write a quote inside a quoted field twice ("")',
    "state machine": "mixed line endings, or not a CSV file",
    "[Mm]aximum.line.size": "a line is longer than 2 MB; look for a quote that is not closed",
}
EXPECTED = {
    "FLOAT": "a number",
    "BIGINT": "a whole number",
    "DECIMAL": "a whole number",
    "SMALLINT": "a whole number from -32,768 to 32,767",
}
"""Description of the valid values of a column of numbers, by its type."""
_SQL = statements("duckdb_session")


class Database:
    """A DuckDB database in the directory `scratch`, where it also spills to disk."""

    def __init__(self, scratch: Path, config: DataConfig) -> None:
        self.scratch = scratch
        self.memory_limit_mb = config.memory_limit_mb
        self.threads = max(1, min(os.cpu_count() or 1, config.memory_limit_mb // MIB_PER_THREAD))
        self.connection = duckdb.connect(
            scratch / "tables.duckdb",
            config={
                "memory_limit": f"{config.memory_limit_mb}MiB",
                "threads": self.threads,
                "temp_directory": str(scratch / "spill"),
            },
        )
        # Keep joins in the order written: the left side streams, so order lines keep their order.
        self.connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        # `query_progress` needs the progress bar; it is not printed.
        self.connection.execute("SET enable_progress_bar = true")
        self.connection.execute("SET enable_progress_bar_print = false")

    def close(self) -> None:
        self.connection.close()

    def run(self, query: str, label: str = "the tables") -> list[tuple[Any, ...]]:
        """Run a query and return its rows; `label` names its input in errors and progress.

        Raises:
            TableError: the data can't be parsed, or the query needs more memory than the limit.
            SourceError, OutputError: a file can't be read, or the disk is full.
        """
        done = threading.Event()
        reporter = threading.Thread(target=self._report_progress, args=(label, done), daemon=True)
        reporter.start()
        try:
            return self.connection.execute(query).fetchall()
        except duckdb.Error as error:
            user_error = self._user_error(label, error)
            if user_error is None:
                raise
            raise user_error from error
        finally:
            done.set()
            reporter.join()

    def number(self, query: str, label: str = "the tables") -> int:
        """Return the single whole number that a query returns."""
        return int(self.run(query, label)[0][0])

    def write(self, query: str, path: Path, label: str) -> int:
        """Write the rows of a query to a Parquet file and return their number."""
        return self.number(_SQL.write(query, path), label)

    def text_type(self, column: str, table: str) -> str:
        """Create and return a type for the values of a column of text."""
        self.run(_SQL.create_enum(column, table))
        return f"{column}_text"

    def create_table(self, name: str, query: str, label: str = "the tables") -> None:
        """Create a table of a query's rows."""
        self.run(_SQL.create_table(name, query), label)

    def insert(self, name: str, query: str, label: str) -> None:
        """Insert a query's rows into a table, by column name."""
        self.run(_SQL.insert(name, query), label)

    def read(self, name: str, path: Path, optional: Collection[str] = ()) -> None:
        """Read a file of the table `name` of Instacart's schema; see `readers.select`.

        Order lines are a view of a scratch Parquet file: for large tables, that takes half the time
        and a tenth of the space of a DuckDB table.
        """
        query = select(path, TABLES[name].columns, path.name, optional)
        if name not in LINES:
            self.create_table(name, query, path.name)
            return
        scratch = self.scratch / f"{name}.parquet"
        with _text_errors(path, path.name):
            self.run(_SQL.write_scratch(query, scratch), path.name)
        self.create(name, [scratch])

    def write_copy(self, name: str, path: Path, copy: Path, label: str) -> None:
        """Write a file of the table `name`, a partition, as Parquet to `copy`."""
        query = select(path, TABLES[name].columns, label)
        with _text_errors(path, label):
            self.write(query, copy, label)

    def create(self, name: str, copies: Sequence[Path]) -> None:
        """Create the table `name` of the rows in Parquet files; of order lines, a view."""
        create = _SQL.create_view if name in LINES else _SQL.create_table
        self.run(create(name, _SQL.read_files(copies)), name)

    @contextmanager
    def single_thread(self) -> Iterator[None]:
        """Run the block's queries on one thread, so that joined rows keep their order."""
        self.connection.execute("SET threads = 1")
        try:
            yield
        finally:
            self.connection.execute(f"SET threads = {self.threads}")

    def _report_progress(self, label: str, done: threading.Event) -> None:
        while not done.wait(PROGRESS_SECONDS):
            percent = self.connection.query_progress()
            if 0 < percent <= 100:
                progress.say("ingest", f"{label} · {percent:.0f} %")

    def _user_error(self, label: str, error: duckdb.Error) -> GrocerError | None:
        """Translate an error that the user can fix; return None for an internal error."""
        message = str(error)
        if "No space left" in message or "max_temp_directory_size" in message:
            return OutputError(f"{label}: no space is left on the device; choose another --out")
        if isinstance(error, duckdb.OutOfMemoryException):
            return TableError(
                f"{label}: DuckDB needs more than {self.memory_limit_mb} MiB; raise it with "
                f"--set data.memory_limit_mb={2 * self.memory_limit_mb}"
            )
        if isinstance(error, duckdb.InvalidInputException | duckdb.ConversionException):
            return TableError(_reader_error(label, message))
        if isinstance(error, duckdb.IOException):
            return SourceError(f"{label}: cannot read: {message.splitlines()[0]}")
        return None


@contextmanager
def _text_errors(path: Path, label: str) -> Iterator[None]:
    """Explain invalid UTF-8 in a CSV file better than the reader does."""
    try:
        yield
    except TableError:
        if path.suffix == ".csv":
            check_text(path, label)
        raise


def _reader_error(label: str, message: str) -> str:
    """Translate an error of DuckDB's CSV reader."""
    number = re.search(r"CSV Error on Line: (\d+)", message)
    line = f"{label}, line {number[1]}" if number else label
    if columns := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
        return f"{line}: expected {columns[1]} columns, found {columns[2]}"
    pattern = r'column "(.+)"\. Could not convert string "(.*)" to \'(\w+)\''
    if conversion := re.search(pattern, message):
        column, value, kind = conversion.groups()
        return f"{line}: column {column!r} holds {value!r}, expected {EXPECTED[kind]}"
    for pattern, explanation in _READER_ERRORS.items():
        if re.search(pattern, message):
            return f"{line}: {explanation}"
    return f"{line}: {message.splitlines()[0].removeprefix('Invalid Input Error: ')}"
