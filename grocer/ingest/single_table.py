"""A catalogue in one table with its own column names, converted to Instacart's tables."""

from itertools import combinations
from pathlib import Path

from grocer.config.stages import ColumnMapping
from grocer.errors import ConfigError
from grocer.ingest.duckdb_session import Database
from grocer.ingest.readers import select
from grocer.ingest.statements import statements

_TYPES = {
    "product_id": "DECIMAL(38,9)",
    "product_name": "VARCHAR",
    "aisle": "VARCHAR",
    "department": "VARCHAR",
    "purchases": "DECIMAL(38,9)",
}
_SQL = statements("single_table")


def stage_catalogue(database: Database, path: Path, mapping: ColumnMapping) -> set[str]:
    """Create the tables products (with `purchases`), departments and, if mapped, aisles.

    Returns the names of the tables, with that of the catalogue itself.

    Product names are unchanged. Departments and aisles are stripped of surrounding spaces and
    numbered in alphabetical order; an empty one becomes `missing`. Empty purchases become 0.

    Raises:
        ConfigError: two settings name the same column.
        TableError: the file lacks a column, has a fraction instead of a whole number, or can't be
            read.
    """
    columns = {key: name for key, name in mapping.model_dump().items() if name is not None}
    for one, other in combinations(columns, 2):
        if columns[one] == columns[other]:
            raise ConfigError(
                f"data.columns.{one} and data.columns.{other} both name {columns[one]!r}; "
                "give each its own column"
            )
    query = select(path, {name: _TYPES[key] for key, name in columns.items()}, path.name)
    database.run(_SQL.create_catalogue(query, columns), path.name)
    database.run(_SQL.create_dimension("departments", "department"))
    aisles = {"aisles"} if mapping.aisle else set()
    if aisles:
        database.run(_SQL.create_dimension("aisles", "aisle"))
    database.run(_SQL.create_products(bool(aisles)))
    return {"catalogue", "products", "departments", *aisles}
