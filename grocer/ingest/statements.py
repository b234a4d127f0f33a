"""Named SQL statements: each macro of `sql/NAME.sql` renders one statement for DuckDB."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def statements(name: str) -> Any:
    """Return the macros of `sql/NAME.sql` as functions that return SQL.

    In a template, `| identifier` and `| literal` quote every name or text that comes from a user.
    """
    environment = Environment(
        loader=PackageLoader("grocer.ingest", "sql"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(identifier=identifier, literal=literal)
    return environment.get_template(f"{name}.sql").module


def literal(value: object) -> str:
    """Return an SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
