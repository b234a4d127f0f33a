"""Named SQL statements: each macro of `sql/NAME.sql` renders one statement for DuckDB."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def statements(name: str) -> Any:
    """Return the macros of `sql/NAME.sql` as functions that return SQL.

    In a template, `| identifier`, `| literal` and `| file` quote every name, text or path to read
    that comes from a user.
    """
    environment = Environment(
        loader=PackageLoader("grocer.ingest", "sql"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(identifier=identifier, literal=literal, file=file)
    return environment.get_template(f"{name}.sql").module


def literal(value: object) -> str:
    """Return an SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def file(path: Path) -> str:
    """Return an SQL string literal of the path of one file, which DuckDB takes as a pattern."""
    return literal(re.sub(r"([*?[])", r"[\1]", str(path.absolute())))


def identifier(name: str) -> str:
    """Return a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
