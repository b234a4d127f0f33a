"""CSV and Parquet files as queries for DuckDB: types stated, never guessed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from grocer.errors import SourceError, TableError
from grocer.ingest.duckdb_session import identifier, literal
from grocer.ingest.schema import csv_header, require_columns

_CHUNK = 8 * 1024 * 1024


def select(
    path: Path, columns: Mapping[str, str], label: str, optional: Collection[str] = ()
) -> str:
    """SQL for the `columns` (name to DuckDB type) of a CSV or Parquet file, in file order.

    Columns that are not asked for are ignored, `optional` ones that are not there are null.
    `label` names the file in errors.

    Raises:
        TableError: not UTF-8 text, no header, or a column that is missing.
        SourceError: not a Parquet file.
    """
    if path.suffix == ".parquet":
        return _select_parquet(path, columns, label, optional)
    texts = "VARCHAR" in columns.values()
    check_text(path, label, whole=texts)  # in columns of numbers, any other text is an error
    header = csv_header(path, label)
    require_columns([key for key in columns if key not in optional], header, label)
    # A guess from the first rows is how 805, a beer, becomes a number. Quotes are RFC 4180's
    # (doubled); a backslash is only a backslash.
    types = ", ".join(f"{literal(key)}: {literal(columns.get(key, 'VARCHAR'))}" for key in header)
    names = ", ".join(
        identifier(key) if key in header else f"NULL::{kind} AS {identifier(key)}"
        for key, kind in columns.items()
    )
    return (
        f"SELECT {names} FROM read_csv({literal(str(path))}, auto_detect = false, header = true, "
        f"delim = ',', quote = '\"', escape = '\"', strict_mode = true, columns = {{{types}}})"
    )


def check_text(path: Path, label: str, whole: bool = True) -> None:
    """Check that a file, or at least its beginning, is UTF-8 text, with or without a BOM.

    Raises:
        TableError: names the byte offset of the first byte that is not.
    """
    offset = 0
    rest = b""  # a character that the end of a block cut: it is judged with the next block
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            block = rest + chunk
            start = offset - len(rest)
            offset += len(chunk)
            rest = b""
            wrong = block.find(b"\0")
            try:
                block.decode()
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data":
                    rest = block[error.start :]
                elif wrong < 0 or error.start < wrong:
                    wrong = error.start
            if wrong >= 0:
                raise _not_text(label, start + wrong, block[wrong])
            if not whole:
                return
    if rest:
        raise _not_text(label, offset - len(rest), rest[0])


def _not_text(label: str, offset: int, byte: int) -> TableError:
    return TableError(
        f"{label}: byte 0x{byte:02x} at byte offset {offset:,} is not UTF-8 text; "
        "save the file as UTF-8 (a byte order mark is fine)"
    )


def _select_parquet(
    path: Path, columns: Mapping[str, str], label: str, optional: Collection[str]
) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{label} is not a whole Parquet file: {error}") from error
    require_columns([key for key in columns if key not in optional], schema.names, label)
    # pandas writes a null in a column of numbers as NaN, which no SQL takes for a null.
    parts = []
    for column, kind in columns.items():
        value = identifier(column) if column in schema.names else "NULL"
        if column in schema.names and pa.types.is_floating(schema.field(column).type):
            value = f"CASE WHEN NOT isnan({value}) THEN {value} END"
        parts.append(f"CAST({value} AS {kind}) AS {identifier(column)}")
    return f"SELECT {', '.join(parts)} FROM read_parquet({literal(str(path))})"
