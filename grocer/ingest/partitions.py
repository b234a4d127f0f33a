"""Tables of the order log in partitions, of which only new and changed files are read.

    DATA/order_products/date=2026-11-29/*.parquet or *.csv
    DATA/orders/date=2026-11-29/*.parquet or *.csv

Each file is read into a Parquet copy with the table's types, named by a digest of all that
determines its rows. Later runs read the copies of unchanged files; all others are removed.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from grocer import __version__, progress
from grocer.errors import ConfigError, SourceError
from grocer.ingest.corrections import open_table
from grocer.ingest.schema import ORDER_LOG, TABLES
from grocer.ingest.spark import Engine, Spark
from grocer.io.atomic import cached_directory, json_digest
from grocer.io.storage import Storage

_ROWS = "rows.parquet"
_KEY = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\..*\.part")
"""Name of a copy, or of one that was not completed because its run was killed."""


@dataclass(frozen=True)
class Partition:
    """A file of a table in partitions."""

    source: Storage
    name: str
    """Path relative to the source, such as `orders/date=2026-11-29/part-0.parquet`."""
    version: dict[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of a local file's content, or of an object's version."""
        return self.source.sha256(self.name) if self.source.local else json_digest(self.version)

    def fetch(self, scratch: Path) -> Path:
        """Return the local file, or a download of the object."""
        if self.source.local:
            return self.source.local / self.name
        path = scratch / f"partition{Path(self.name).suffix}"
        self.source.get(path, self.name)
        return path

    def require_unchanged(self) -> None:
        """Raise `SourceError` if the file is no longer the one that was found."""
        if self.source.version(self.name) != self.version:
            raise SourceError(f"{self.name} changed while it was read; run again")


def find_partitions(data: str, files: Collection[str]) -> dict[str, list[Partition]]:
    """Return the sorted partitions of each table that is a directory in `data`, by table.

    Args:
        data: a local directory, or an `s3://` or `gs://` URI; other sources have no partitions.
        files: names of the tables that are a single file.

    Raises:
        SourceError: a table is also a file, or its directory has no files or other ones.
    """
    if not data.startswith(("s3://", "gs://")) and not Path(data).is_dir():
        return {}
    source = Storage(data, setting="--data", step="ingest", error=SourceError)
    tables = [name for name in source.list() if name in ORDER_LOG]
    if twice := set(tables) & set(files):
        raise SourceError(f"--data {data}: {min(twice)} is a file and a directory; keep one")
    return {table: _partitions(source, table) for table in tables}


def _partitions(source: Storage, table: str) -> list[Partition]:
    """Return the files of a table; names that start with `_` or `.` are ignored, as by Spark."""
    found = [path for path in sorted(source.find(table)) if not re.search(r"(^|/)[_.]", path)]
    others = [path for path in found if not path.endswith((".csv", ".parquet"))]
    if others or not found:
        raise SourceError(
            f"--data {source.address}: expected .csv or .parquet files in {table}/, found "
            f"{others[0] if others else 'none'}"
        )
    names = [f"{table}/{path}" for path in found]
    return [Partition(source, name, source.version(name)) for name in names]


class PartitionCopies:
    """The copies of partitions in `data.partitions`; without that setting, in `scratch`."""

    def __init__(self, address: str | None, engine: Engine, scratch: Path) -> None:
        """Choose the place of the copies; nothing is read yet.

        Raises:
            SourceError: neither a directory nor an object store.
            ConfigError: an object store with Spark, which reads the copies from a directory.
        """
        self.engine, self.scratch = engine, scratch
        self.store = open_table(address, "data.partitions") if address else None
        self.is_remote = self.store is not None and not self.store.is_local
        if self.is_remote and isinstance(engine, Spark):
            raise ConfigError(f"data.partitions={address}: data.engine=spark needs a directory")
        self.directory = (self.store and self.store.local) or scratch / "partitions"
        self.used: set[str] = set()
        self.new = 0

    def read(self, tables: Mapping[str, Sequence[Partition]]) -> dict[str, dict[str, int]]:
        """Create tables of their partitions' rows in the engine, and remove all other copies.

        Returns:
            The rows of each partition, by table.

        Raises:
            SourceError, TableError: a file can't be read, changes meanwhile, or has an invalid row.
            OutputError: a copy can't be written.
        """
        rows: dict[str, dict[str, int]] = {}
        for table, partitions in tables.items():
            self.new = 0
            copies = {each.name: self._copy(table, each) for each in partitions}
            progress.say("ingest", f"{table}: read {self.new:,} of {len(copies):,} partitions")
            rows[table] = {name: _rows(path) for name, path in copies.items()}
            self.engine.create(table, list(copies.values()))
        if self.store and tables:
            self._remove_unused(self.store)
        return rows

    def _copy(self, table: str, partition: Partition) -> Path:
        """Return the copy of a partition, which is created if there is none."""
        engine, columns = type(self.engine).__name__, list(TABLES[table].columns.items())
        key = json_digest([__version__, engine, columns, partition.name, partition.digest])
        self.used.add(key)

        def fill(directory: Path) -> None:
            copy = directory / _ROWS
            if self.store and self.is_remote and self.store.exists(key):
                self.store.get(copy, key)
                return
            self.new += 1
            path = partition.fetch(self.scratch)
            self.engine.write_copy(table, path, copy, partition.name)
            partition.require_unchanged()
            if self.store and self.is_remote:
                self.store.put(copy, key)

        return cached_directory(self.directory / key, fill) / _ROWS

    def _remove_unused(self, store: Storage) -> None:
        """Remove the copies of partitions that were removed from the source or changed."""
        unused = {name for name in store.list() if _KEY.fullmatch(name)} - self.used
        for name in unused:
            store.remove(name)
        if unused:
            progress.say("ingest", f"removed {len(unused):,} copies of earlier partitions")


def _rows(copy: Path) -> int:
    """Return the number of rows of a Parquet file, or of the files in a directory.

    Raises:
        SourceError: a file is damaged.
    """
    try:
        files = list(copy.iterdir()) if copy.is_dir() else [copy]
        return sum(pq.read_metadata(file).num_rows for file in files)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"data.partitions: {copy} is damaged ({error}); remove it") from error
