"""DuckDB queries that read CSV and Parquet files with given column types."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from grocer.errors import SourceError, TableError
from grocer.ingest.schema import csv_header, require_columns
from grocer.ingest.statements import statements

_BLOCK_BYTES = 8 * 1024 * 1024
_SQL = statements("readers")


def select(
    path: Path, columns: Mapping[str, str], label: str, optional: Collection[str] = ()
) -> str:
    """Return SQL for the `columns` (name to DuckDB type) of a CSV or Parquet file, in file order.

    Other columns of the file are ignored; `optional` columns that are missing are null.
    `label` names the file in errors.

    Raises:
        TableError: not UTF-8 text, no header, or a missing column.
        SourceError: not a Parquet file.
    """
    required = [name for name in columns if name not in optional]
    if path.suffix == ".parquet":
        names, floating = _parquet_columns(path, label)
        require_columns(required, names, label)
        return str(_SQL.read_parquet(path, columns, names, floating))
    # In columns of numbers the reader rejects any other text itself.
    check_text(path, label, whole="VARCHAR" in columns.values())
    header = csv_header(path, label)
    require_columns(required, header, label)
    return str(_SQL.read_csv(path, columns, header))


def check_text(path: Path, label: str, whole: bool = True) -> None:
    """Check that a file, or its first block unless `whole`, is UTF-8 text, with or without a BOM.

    Raises:
        TableError: gives the byte offset of the first invalid byte.
    """
    offset = 0
    rest = b""  # an incomplete character at the end of a block, checked with the next block
    with path.open("rb") as file:
        while chunk := file.read(_BLOCK_BYTES):
            block = rest + chunk
            start = offset - len(rest)
            offset += len(chunk)
            rest = b""
            invalid = block.find(b"\0")
            try:
                block.decode()
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data":
                    rest = block[error.start :]
                elif invalid < 0 or error.start < invalid:
                    invalid = error.start
            if invalid >= 0:
                raise _not_text(label, start + invalid, block[invalid])
            if not whole:
                return
    if rest:
        raise _not_text(label, offset - len(rest), rest[0])


def _not_text(label: str, offset: int, byte: int) -> TableError:
    return TableError(
        f"{label}: byte 0x{byte:02x} at byte offset {offset:,} is not UTF-8 text; "
        "save the file as UTF-8 (a byte order mark is fine)"
    )


def _parquet_columns(path: Path, label: str) -> tuple[list[str], set[str]]:
    """Return the names of a Parquet file's columns, and of those with floating-point numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{label}: not a complete Parquet file: {error}") from error
    return schema.names, {field.name for field in schema if pa.types.is_floating(field.type)}
