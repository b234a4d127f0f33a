"""DuckDB as the data steps use it: under a memory limit, with progress, errors in one line."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from grocer import progress as console
from grocer.config.stages import DataConfig
from grocer.errors import GrocerError, OutputError, SourceError, TableError

PROGRESS_SECONDS = 5.0
MIB_PER_THREAD = 200  # of the memory limit: joining Instacart's tables takes this much
# Row groups of a million rows hold each name's text once. Numbers go without dictionaries: as
# deltas they are as small, and are written and read in half the time. A higher level of zstd
# takes a seventh more time for 2 % less space.
PARQUET = (
    "FORMAT parquet, PARQUET_VERSION V2, COMPRESSION zstd, COMPRESSION_LEVEL 1, "
    "ROW_GROUP_SIZE 1000000, DICTIONARY_SIZE_LIMIT 1"
)


class Database:
    """A DuckDB in the directory `scratch`, where it also spills what its memory can't hold."""

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
        # Joins as written: the left side streams, so lines keep their order, run after run.
        self.connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        # Progress is kept, for `query_progress`, but not drawn.
        self.connection.execute("SET enable_progress_bar = true")
        self.connection.execute("SET enable_progress_bar_print = false")

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def run(self, query: str, label: str = "the tables") -> list[tuple[Any, ...]]:
        """Run a query and return its rows; `label` names what it reads in errors and progress.

        Raises:
            TableError: data that doesn't parse, or needs more memory than the limit.
            SourceError, OutputError: a file that can't be read, a disk that is full.
        """
        with self._explained(label), self._progress(label):
            return self.connection.execute(query).fetchall()

    def number(self, query: str, label: str = "the tables") -> int:
        """The single whole number that a query returns."""
        return int(self.run(query, label)[0][0])

    def write(self, query: str, path: Path, label: str) -> int:
        """Write a query's rows to a Parquet file; how many they are."""
        return self.number(f"COPY ({query}) TO {literal(str(path))} ({PARQUET})", label)

    def park(self, name: str, query: str, label: str) -> None:
        """Make the view `name` of a query's rows, parked in a Parquet file.

        Of large tables: half the work of a table of DuckDB's own, in a tenth of the space.
        """
        path = literal(str(self.scratch / f"{name}.parquet"))
        options = PARQUET.replace("zstd, COMPRESSION_LEVEL 1", "uncompressed")
        options = options.replace("ROW_GROUP_SIZE 1000000, ", "")
        self.run(f"COPY ({query}) TO {path} ({options})", label)
        self.run(f"CREATE VIEW {name} AS FROM read_parquet({path})")

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Within the block one thread works, so the rows of a join keep their order.

        Several threads finish them in an order of their own.
        """
        self.connection.execute("SET threads = 1")
        try:
            yield
        finally:
            self.connection.execute(f"SET threads = {self.threads}")

    @contextmanager
    def _progress(self, label: str) -> Iterator[None]:
        """Say now and then how far a query has come, from a thread of its own."""
        done = threading.Event()

        def report() -> None:
            while not done.wait(PROGRESS_SECONDS):
                percent = self.connection.query_progress()
                if 0 < percent <= 100:
                    console.say("ingest", f"{label} · {percent:.0f} %")

        reporter = threading.Thread(target=report, daemon=True)
        reporter.start()
        try:
            yield
        finally:
            done.set()
            reporter.join()

    @contextmanager
    def _explained(self, label: str) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            mistake = self._mistake(label, error)
            if mistake is None:
                raise
            raise mistake from error

    def _mistake(self, label: str, error: duckdb.Error) -> GrocerError | None:
        """What the user can mend, in one line; None where it is a fault of ours."""
        message = str(error)
        if "No space left" in message or "max_temp_directory_size" in message:
            return OutputError(f"{label}: no space is left on the device; choose another --out")
        if isinstance(error, duckdb.OutOfMemoryException):
            return TableError(
                f"{label}: DuckDB needs more than {self.memory_limit_mb} MiB; raise it with "
                f"--set data.memory_limit_mb={2 * self.memory_limit_mb}"
            )
        if isinstance(error, duckdb.InvalidInputException | duckdb.ConversionException):
            return _reader_error(label, message)
        if isinstance(error, duckdb.IOException):
            return SourceError(f"{label} can't be read: {message.splitlines()[0]}")
        return None


def literal(value: str) -> str:
    """A string literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def identifier(value: str) -> str:
    """A quoted identifier of SQL."""
    return '"' + value.replace('"', '""') + '"'


def _reader_error(label: str, message: str) -> GrocerError:
    line = re.search(r"CSV Error on Line: (\d+)", message)
    where = f"{label}, line {line[1]}" if line else label
    if found := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message):
        return TableError(f"{where}: the header has {found[1]} columns, this line {found[2]}")
    if found := re.search(r'column "(.+)"\. Could not convert string "(.*)" to \'(\w+)\'', message):
        what = {"FLOAT": "a number", "BIGINT": "a whole number"}.get(
            found[3], "a whole number from -32,768 to 32,767"
        )
        return TableError(f"{where}: column {found[1]!r} holds {found[2]!r}, not {what}")
    if "unterminated quote" in message:
        return TableError(
            f"{where}: a quoted field has no end, or text follows its closing quote; "
            'a quote inside a quoted field is written twice ("")'
        )
    if "state machine" in message:
        return TableError(f"{where}: not one kind of line ending throughout, or not CSV at all")
    if "Maximum line size" in message or "maximum_line_size" in message:
        return TableError(f"{where}: a line is longer than 2 MB; is a quote left open?")
    return TableError(f"{where}: {message.splitlines()[0]}")
