"""A shop's own catalogue, one table with columns of its own names, as Instacart's tables."""

from __future__ import annotations

from pathlib import Path

from grocer.config.stages import ColumnMapping
from grocer.errors import ConfigError
from grocer.ingest.duckdb_session import Database, identifier
from grocer.ingest.readers import select

_TYPES = {
    "product_id": "BIGINT",
    "product_name": "VARCHAR",
    "aisle": "VARCHAR",
    "department": "VARCHAR",
    "purchases": "BIGINT",
}


def stage_catalogue(database: Database, path: Path, columns: ColumnMapping) -> None:
    """Make the tables products (with `purchases`), departments and, if mapped, aisles of one file.

    Names of products stay as they are; departments and aisles lose the spaces around them and
    get ids in the order of their names. Where one is empty it becomes `missing`; an empty count
    of purchases is 0.

    Raises:
        ConfigError: one column of the file is to be two things.
        TableError: the file lacks a column, or can't be read.
    """
    mapped = {key: name for key, name in columns.model_dump().items() if name is not None}
    for key, name in mapped.items():
        others = [other for other in mapped if mapped[other] == name and other != key]
        if others:
            raise ConfigError(
                f"data.columns.{key} and data.columns.{others[0]} both name {name!r}; "
                "each needs a column of its own"
            )
    query = select(path, {name: _TYPES[key] for key, name in mapped.items()}, path.name)
    values = {key: identifier(name) for key, name in mapped.items()}
    values["department"] = f"coalesce(nullif(trim({values['department']}), ''), 'missing')"
    if columns.aisle:
        values["aisle"] = f"coalesce(nullif(trim({values['aisle']}), ''), 'missing')"
    values["purchases"] = f"coalesce({values['purchases']}, 0)" if columns.purchases else "1"
    values.setdefault("product_id", "row_number() OVER ()")
    selected = ", ".join(f"{value} AS {key}" for key, value in values.items())
    database.run(f"CREATE TABLE catalogue AS SELECT {selected} FROM ({query})", path.name)
    dimensions = {"department": "departments"} | ({"aisle": "aisles"} if columns.aisle else {})
    for column, table in dimensions.items():
        database.run(
            f"CREATE TABLE {table} AS "
            f"SELECT row_number() OVER (ORDER BY {column}) AS {column}_id, {column} "
            f"FROM (SELECT DISTINCT {column} FROM catalogue)"
        )
    aisle_id = "aisle_id" if columns.aisle else "NULL::BIGINT AS aisle_id"
    joins = " ".join(f"JOIN {table} USING ({column})" for column, table in dimensions.items())
    database.run(
        f"CREATE TABLE products AS SELECT product_id, product_name, {aisle_id}, department_id, "
        f"purchases FROM catalogue c {joins} ORDER BY c.rowid"
    )
