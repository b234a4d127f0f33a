"""An Apache Spark session that reads and joins an order log larger than one machine.

Spark runs the same statements as DuckDB on orders and order lines, and hands its small results,
such as counts by product, to the DuckDB database, which has all other tables.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa

from grocer import progress
from grocer.errors import ConfigError, OutputError, TableError
from grocer.ingest.duckdb_session import EXPECTED, Database
from grocer.ingest.readers import file_columns
from grocer.ingest.schema import TABLES
from grocer.ingest.statements import statements

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CONNECT_PORT, CONNECT_SECONDS = 15002, 10.0
_SQL = statements("spark")


def spark_session() -> SparkSession:
    """Return the session of `SPARK_REMOTE` or spark-defaults.conf, otherwise one on this machine.

    Raises:
        ConfigError: PySpark or Java is missing, or no server listens at `SPARK_REMOTE`.
    """
    try:
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ConfigError(
            f"data.engine=spark: {error}; install requirements-spark.lock, see "
            "docs/catalogue.md#order-logs-beyond-one-machine"
        ) from error
    builder = SparkSession.builder.appName("grocer")
    is_remote = "SPARK_REMOTE" in os.environ
    if is_remote:
        _check_server(os.environ["SPARK_REMOTE"])
    else:
        for key in ("spark.ui.enabled", "spark.ui.showConsoleProgress"):
            builder = builder.config(key, "false")
    try:
        session = builder.getOrCreate()
    except PySparkRuntimeError as error:
        raise ConfigError(
            f"data.engine=spark: Spark did not start: {error}; install Java 17 or 21, or set "
            "SPARK_REMOTE to the address of a Spark Connect server"
        ) from error
    if not is_remote:
        session.sparkContext.setLogLevel("FATAL")  # errors are raised
    return session


def _check_server(remote: str) -> None:
    """Check that a Spark Connect server listens; PySpark would retry for more than ten minutes."""
    address = urlsplit(remote)
    if address.scheme != "sc":  # local[*]: PySpark starts a server
        return
    try:
        port = address.port or CONNECT_PORT
        socket.create_connection((address.hostname or "", port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"data.engine=spark: no Spark Connect server at SPARK_REMOTE={remote}: {error}"
        ) from error


def read_parquet(path: Path, columns: Sequence[str]) -> DataFrame:
    """Return columns of the Parquet files in a directory."""
    return spark_session().read.parquet(_uri(path)).select(*columns)


class Spark:
    """The order log in Spark; scratch files are in the directory of `database`.

    All executors must see the source and the output directory at the same path.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.session = spark_session()
        # Spark broadcasts tables by the size of their compressed files, which is too little for
        # orders; the products are broadcast by a hint.
        self.session.conf.set("spark.sql.autoBroadcastJoinThreshold", -1)
        progress.say("ingest", f"orders and order lines are joined by Spark {self.session.version}")

    def read(self, name: str, path: Path) -> None:
        """Read a file of the table `name` of Instacart's schema; raises what `write_copy` does."""
        copy = self.database.scratch / f"{name}.parquet"
        self.write_copy(name, path, copy, path.name)
        self.create(name, [copy])

    def write_copy(self, name: str, path: Path, copy: Path, label: str) -> None:
        """Write a file of the table `name` as Parquet files to the directory `copy`.

        They have the column `rowid`, the file's label and the position in it.

        Raises:
            SourceError, TableError: the file can't be read, lacks a column, or has an invalid row.
        """
        columns = TABLES[name].columns
        header, floating = file_columns(path, columns, label)
        is_csv = path.suffix == ".csv"
        if is_csv:
            reader = self.session.read.options(
                columnNameOfCorruptRecord="malformed", columnPruning=False
            )
            # Other columns of the file are numbered, because their names may be equal to Spark.
            names = [name if name in columns else f"_{i}" for i, name in enumerate(header)]
            schema = ", ".join(f"{name} STRING" for name in (*names, "malformed"))
            frame = reader.csv(_uri(path), schema=schema, header=True, escape='"')
        else:
            frame = self.session.read.parquet(_uri(path))
        frame.createOrReplaceTempView("file")
        typed = _SQL.typed(columns, floating, is_csv, label.encode().hex())
        self.write(typed, copy, label)
        self.create("copy", [copy])
        for column, value in self.run(_SQL.first_invalid("copy"), label):
            if not column:
                raise TableError(f"{label}: expected {len(header)} columns, found {value!r}")
            expected = EXPECTED[columns[column]]
            raise TableError(f"{label}: column {column!r} holds {value!r}, expected {expected}")

    def create(self, name: str, copies: Sequence[Path]) -> None:
        """Create the view `name` of the rows in directories with Parquet files."""
        frame = self.session.read.parquet(*map(_uri, copies))
        frame.createOrReplaceTempView(name)

    def run(self, query: str, label: str = "the tables") -> list[tuple[Any, ...]]:
        """Run a query and return its rows."""
        with _user_errors(label):
            return [tuple(row) for row in self.session.sql(query).collect()]

    def number(self, query: str, label: str = "the tables") -> int:
        """Return the single whole number that a query returns."""
        return int(self.run(query, label)[0][0])

    def write(self, query: str, path: Path, label: str) -> int:
        """Write the rows of a query to Parquet files in the directory `path`; return their number.

        Raises:
            OutputError: an executor wrote them to another machine.
        """
        with _user_errors(label):
            self.session.sql(query).write.parquet(_uri(path), compression="zstd")
        if not any(path.glob("*.parquet")):
            raise OutputError(
                f"{label}: Spark's executors do not write to {path} of this machine; mount the "
                "same volume here and on all executors"
            )
        for file in path.iterdir():  # Spark adds checksums and an empty file _SUCCESS
            if file.suffix != ".parquet":
                file.unlink()
        return int(self.session.read.parquet(_uri(path)).count())

    def create_table(self, name: str, query: str, label: str = "the tables") -> None:
        """Create a table of a query's rows in the DuckDB database."""
        with self._result(query, label) as result:
            self.database.create_table(name, result, label)

    def insert(self, name: str, query: str, label: str) -> None:
        """Insert a query's rows into a table of the DuckDB database, by column name."""
        with self._result(query, label) as result:
            self.database.insert(name, result, label)

    def copy(self, name: str) -> None:
        """Copy a table of the DuckDB database into the view `name`, for all executors."""
        table = self.database.connection.sql(f"FROM {name}").to_arrow_table()
        plain = [
            field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
            for field in table.schema
        ]
        frame = self.session.createDataFrame(table.cast(pa.schema(plain)))
        frame.hint("broadcast").createOrReplaceTempView(name)

    def text_type(self, column: str, table: str) -> str:
        """Return the type of a column of text."""
        return "STRING"

    @contextmanager
    def _result(self, query: str, label: str) -> Iterator[str]:
        """Yield a query in DuckDB of the rows that a query in Spark returns."""
        with _user_errors(label):
            self.database.connection.register("result", self.session.sql(query).toArrow())
        yield "FROM result"
        self.database.connection.unregister("result")


Engine = Database | Spark


@contextmanager
def _user_errors(label: str) -> Iterator[None]:
    """Translate errors that the user can fix; `label` names the input."""
    try:
        yield
    except Exception as error:  # those of PySpark, Py4J and gRPC have no common class
        if re.search("No space left", str(error)):
            message = f"{label}: no space is left on a device of Spark (--out or spark.local.dir)"
            raise OutputError(message) from error
        if re.search("OutOfMemoryError|Not enough memory", str(error)):
            raise TableError(
                f"{label}: Spark needs more memory; raise spark.executor.memory, on this machine "
                "spark.driver.memory, in spark-defaults.conf"
            ) from error
        raise


def _uri(path: Path) -> str:
    """Return an address that does not depend on Spark's default file system."""
    return f"file://{path.absolute()}"
