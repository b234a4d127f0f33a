"""Read and write tables a few thousand rows at a time, in order, as CSV or Parquet."""

from __future__ import annotations

import csv
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from grocer.errors import ConfigError, SourceError, TableError

# In characters. A longer field is a sign of a quote that is not closed.
_MAX_FIELD_LENGTH = 1024 * 1024
_CHUNK_ROWS = 10_000
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def open_source(path: Path) -> Source:
    """Return the table in a CSV or Parquet file.

    Raises:
        SourceError: no such file, or not a Parquet file.
        TableError: no header, or a duplicate column.
        ConfigError: another extension.
    """
    check_format(path)
    if not path.is_file():
        raise SourceError(f"{path}: no such file")
    return _Parquet(path) if path.suffix == ".parquet" else _Csv(path)


def check_format(path: Path) -> None:
    """Check that a file's extension is `.csv` or `.parquet`.

    Raises:
        ConfigError: another extension.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(
            f"{path}: expected a name that ends in .csv or .parquet (lower case); save a "
            "spreadsheet as CSV UTF-8 with commas"
        )


def missing_column(
    source: Path | str, column: str, names: Sequence[str], next_step: str = "rename one of them"
) -> TableError:
    """Return the error of a table without a column; its fields may have another separator."""
    if len(names) == 1 and (found := set(";\t|") & set(names[0])):
        return TableError(
            f"{source}: column {column!r} is missing, because the fields are separated by "
            f"{found.pop()!r}; save the file with commas"
        )
    return TableError(f"{source}: no column {column!r}; found {', '.join(names)}; {next_step}")


def write_part(path: Path, table: pa.Table, format: str) -> None:
    """Write one chunk: Parquet, or CSV without a header."""
    if format == ".parquet":
        pq.write_table(table, path, compression="zstd")
        return
    columns = [column.to_pylist() for column in table.columns]
    with path.open("w", newline="", encoding="utf-8") as file:
        minimal = csv.writer(file, lineterminator="\n")
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in zip(*columns, strict=True):
            # The csv module quotes a line feed, but not a carriage return, which ends a row too.
            has_return = any(isinstance(value, str) and "\r" in value for value in row)
            (quoted if has_return else minimal).writerow(row)


def join_parts(
    parts: Iterable[Path], schema: pa.Schema, out: Path, format: str, encoding: str = "utf-8"
) -> None:
    """Concatenate chunks that `write_part` wrote; `encoding` is that of the header of CSV."""
    if format == ".parquet":
        with pq.ParquetWriter(out, schema, compression="zstd") as writer:
            for part in parts:
                writer.write_table(pq.read_table(part, schema=schema))
        return
    with out.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, lineterminator="\n").writerow(schema.names)
    with out.open("ab") as file:
        for part in parts:
            file.write(part.read_bytes())


def formula_guarded(text: str) -> str:
    """Return the text of a CSV cell that no spreadsheet runs as a formula.

    Such a text gets an apostrophe in front, as OWASP recommends against CSV injection.
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def without_formula_guard(text: str) -> str:
    """Return the text that `formula_guarded` was given."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(_FORMULA_STARTS) else text


class _Parquet:
    """A Parquet file."""

    encoding = "utf-8"
    """Of a copy as CSV."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(f"{path}: cannot read as Parquet: {error}") from error
        self.schema: pa.Schema = self._file.schema_arrow
        """Names and types of the columns."""

    def count(self) -> int:
        """Return the number of rows."""
        return int(self._file.metadata.num_rows)

    def chunks(self, rows: int = _CHUNK_ROWS) -> Iterator[pa.Table]:
        """Yield tables of `rows` rows; the last may have fewer."""
        rest = self.schema.empty_table()
        for batch in self._file.iter_batches(batch_size=rows):
            rest = pa.concat_tables([rest, pa.Table.from_batches([batch])])
            while rest.num_rows >= rows:
                yield rest.slice(0, rows)
                rest = rest.slice(rows)
        if rest.num_rows:
            yield rest


class _Csv:
    """A CSV file whose fields are all text, so that they are written as they were read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        _, header = next(self._rows(), (0, []))
        if not header:
            raise TableError(f"{path}: empty; expected a header and rows")
        if header.count("") > 1:  # as a spreadsheet saves cells beside the table
            header = [name or f"column {number}" for number, name in enumerate(header, 1)]
        if duplicates := {name for name in header if header.count(name) > 1}:
            raise TableError(f"{path}: duplicate column {min(duplicates)!r} in the header")
        self.schema = pa.schema([(name, pa.string()) for name in header])
        with path.open("rb") as file:  # without a byte order mark, Excel does not read it as UTF-8
            self.encoding = "utf-8-sig" if file.read(3) == BOM_UTF8 else "utf-8"

    def count(self) -> int:
        """Return the number of rows, after checking all of them."""
        return sum(table.num_rows for table in self.chunks())

    def chunks(self, rows: int = _CHUNK_ROWS) -> Iterator[pa.Table]:
        body = self._body()
        while chunk := list(islice(body, rows)):
            columns = [list(column) for column in zip(*chunk, strict=True)]
            yield pa.table(columns, schema=self.schema)

    def _body(self) -> Iterator[list[str]]:
        """Yield the fields of each row below the header."""
        width = len(self.schema)
        for line, row in islice(self._rows(), 1, None):
            if not row and width > 1:
                continue  # a blank line; in a table of one column it is an empty field
            row = row or [""]
            if len(row) != width:
                raise TableError(
                    f"{self._path}, line {line}: expected {width} fields, found {len(row)}; "
                    "quote fields that contain commas"
                )
            yield row

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line number and the fields of each row.

        Raises:
            TableError: not UTF-8, or not CSV.
        """
        csv.field_size_limit(_MAX_FIELD_LENGTH)
        with self._path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            try:
                for row in reader:
                    yield reader.line_num, row
            except UnicodeDecodeError as error:
                after = f", after line {reader.line_num}" if reader.line_num else ""
                raise TableError(
                    f"{self._path}{after}: not UTF-8; save the file as CSV UTF-8"
                ) from error
            except csv.Error as error:
                raise TableError(f"{self._path}, line {reader.line_num}: {error}") from error


Source = _Parquet | _Csv
"""A table in a file."""
