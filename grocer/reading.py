"""CSV and Parquet as DuckDB reads them here: strict, with what is wrong said in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb

from grocer.errors import GrocerError, OutputError, SourceError, TableError
from grocer.schema import csv_header, require_columns

_CHUNK = 8 * 1024 * 1024


def select(path: Path, columns: Mapping[str, str], label: str) -> str:
    """SQL for the `columns` (name to DuckDB type) of a CSV or Parquet file, in file order.

    Columns that are not asked for are ignored. `label` names the file in errors.

    Raises:
        TableError: not UTF-8 text, no header, or a column that is missing.
        SourceError: not a Parquet file.
    """
    if path.suffix == ".parquet":
        return _select_parquet(path, columns, label)
    check_text(path, label)
    header = csv_header(path, label)
    require_columns(columns, header, label)
    # Types are stated, never guessed: a guess from the first rows is how 805, a beer, becomes
    # a number. Quotes are RFC 4180's (doubled); a backslash is only a backslash.
    types = ", ".join(f"{_text(name)}: {_text(columns.get(name, 'VARCHAR'))}" for name in header)
    names = ", ".join(_name(column) for column in columns)
    return (
        f"SELECT {names} FROM read_csv({_text(str(path))}, auto_detect = false, header = true, "
        f"delim = ',', quote = '\"', escape = '\"', strict_mode = true, columns = {{{types}}})"
    )


def check_text(path: Path, label: str) -> None:
    """Check that a file is UTF-8 text, with or without a byte order mark.

    Raises:
        TableError: names the byte offset of the first byte that is not.
    """
    offset = 0
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            block = rest + chunk
            start = offset - len(rest)
            if (zero := block.find(b"\0")) >= 0:
                raise _not_text(label, start + zero, "a zero byte")
            try:
                block.decode()
                rest = b""
            except UnicodeDecodeError as error:
                # A character cut off by the end of a block is judged with the next one.
                if error.reason != "unexpected end of data":
                    what = f"byte 0x{block[error.start]:02x}"
                    raise _not_text(label, start + error.start, what) from error
                rest = block[error.start :]
            offset += len(chunk)
    if rest:
        raise _not_text(label, offset - len(rest), f"byte 0x{rest[0]:02x}")


def _not_text(label: str, offset: int, what: str) -> TableError:
    return TableError(
        f"{label}: {what} at byte offset {offset:,} is not UTF-8 text; "
        "save the file as UTF-8 (a byte order mark is fine)"
    )


def _select_parquet(path: Path, columns: Mapping[str, str], label: str) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{label} is not a whole Parquet file: {error}") from error
    require_columns(columns, schema.names, label)
    # pandas writes a null in a column of numbers as NaN, which no SQL takes for a null.
    parts = []
    for column, kind in columns.items():
        name = _name(column)
        floating = pa.types.is_floating(schema.field(column).type)
        value = f"CASE WHEN NOT isnan({name}) THEN {name} END" if floating else name
        parts.append(f"CAST({value} AS {kind}) AS {name}")
    return f"SELECT {', '.join(parts)} FROM read_parquet({_text(str(path))})"


@contextmanager
def explained(label: str, memory_limit_mb: int) -> Iterator[None]:
    """Turn DuckDB's errors about data, memory and disk into one line about `label`."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise TableError(
            f"{label}: DuckDB needs more than {memory_limit_mb} MiB; raise it with "
            f"--set data.memory_limit_mb={2 * memory_limit_mb}"
        ) from error
    except (duckdb.InvalidInputException, duckdb.ConversionException) as error:
        raise _reader_error(label, str(error)) from error
    except duckdb.IOException as error:
        raise _disk_error(label, str(error)) from error


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


def _disk_error(label: str, message: str) -> GrocerError:
    if "No space left" in message:
        return OutputError(f"{label}: no space is left on the device; choose another --out")
    return SourceError(f"{label} can't be read: {message.splitlines()[0]}")


def _text(value: str) -> str:
    """A string literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    """A quoted identifier of SQL."""
    return '"' + value.replace('"', '""') + '"'
