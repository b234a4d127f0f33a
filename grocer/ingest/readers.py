"""DuckDB queries that read CSV and Parquet files with given column types."""

from codecs import getincrementaldecoder
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
    `label` names the file in errors. Raises what `file_columns` raises.
    """
    header, floating = file_columns(path, columns, label, optional)
    if path.suffix == ".parquet":
        return str(_SQL.read_parquet(path, columns, header, floating))
    return str(_SQL.read_csv(path, columns, header))


def file_columns(
    path: Path, columns: Mapping[str, str], label: str, optional: Collection[str] = ()
) -> tuple[list[str], set[str]]:
    """Return the names of a file's columns, and of those with floating-point numbers.

    A CSV file has none of the latter.

    Raises:
        TableError: not UTF-8 text, no header, or a missing or ambiguous column.
        SourceError: not a Parquet file.
    """
    floating: set[str] = set()
    if path.suffix == ".parquet":
        header, floating = _parquet_columns(path, label)
    else:
        # In columns of numbers the reader rejects any other text itself.
        check_text(path, label, first_block_only="VARCHAR" not in columns.values())
        header = csv_header(path, label)
    require_columns([name for name in columns if name not in optional], header, label)
    for column in columns:
        same = [name for name in header if name.lower() == column.lower()]
        if column in same and len(same) > 1:
            raise TableError(
                f"{label}: columns {' and '.join(map(repr, same))} differ at most in case, which "
                "DuckDB ignores; rename one"
            )
    return header, floating


def check_text(path: Path, label: str, first_block_only: bool = False) -> None:
    """Check that a file, or its first block, is UTF-8 text, with or without a BOM.

    Raises:
        TableError: gives the byte offset of the first invalid byte.
    """
    decoder = getincrementaldecoder("utf-8")()
    end = 0
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK_BYTES)
            data = decoder.getstate()[0] + block  # with the start of an incomplete character
            end += len(block)
            invalid = [data.index(b"\0")] if b"\0" in data else []
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                invalid.append(error.start)
            if invalid:
                index = min(invalid)
                raise TableError(
                    f"{label}: byte 0x{data[index]:02x} at byte offset {end - len(data) + index:,} "
                    "is not UTF-8 text; save the file as UTF-8 (a byte order mark is fine)"
                )
            if not block or first_block_only:
                return


def _parquet_columns(path: Path, label: str) -> tuple[list[str], set[str]]:
    """Return the names of a Parquet file's columns, and of those with floating-point numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{label}: not a complete Parquet file: {error}") from error
    return schema.names, {field.name for field in schema if pa.types.is_floating(field.type)}
