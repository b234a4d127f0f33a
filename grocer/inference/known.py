"""Predictions that need no model: labels of reviewers, and predictions of an earlier output.

OUT  OUT.json  the output of bulk, and what its predictions depend on
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from grocer.errors import SourceError, TableError
from grocer.ingest.corrections import Corrections, open_table, read_table
from grocer.io.atomic import file_digest, json_bytes
from grocer.io.storage import Storage
from grocer.io.tables import open_source
from grocer.model.prompts.product_names import name_key
from grocer.progress import say

_CHUNK_ROWS = 65_536
_STATE = ".json"
"""Suffix of the file next to the output with its `_SETTINGS` and SHA-256."""
_SETTINGS = ("bundle", "column", "min_probability")
Row = tuple[Any, ...]
"""Values of the columns that classification adds."""


@dataclass(frozen=True)
class Known:
    """Rows by name; a reviewed label comes before an earlier prediction."""

    corrections: Mapping[str, str] = field(default_factory=dict)
    """Labels of reviewers, by normal form of the name."""
    earlier: Mapping[str, Row] = field(default_factory=dict)
    """Rows of an earlier output with the same columns, by name."""

    def find(self, name: str, columns: int) -> Row | None:
        """Return the values of `columns` columns for a name, or None if it must be classified.

        A reviewed label has probability 1; its aisle and alternatives are null.
        """
        if self.corrections and (label := self.corrections.get(name_key(name))) is not None:
            return (label, 1.0, *[None] * (columns - 2))
        return self.earlier.get(name)

    @classmethod
    def read(
        cls,
        previous: Path | None,
        column: str,
        added: Sequence[str],
        corrections: Mapping[str, str],
    ) -> Known:
        """Return the corrections and the rows of an earlier output.

        Args:
            column: column with the names.
            added: columns that classification adds.

        Raises:
            SourceError, TableError: the earlier output is not readable, or has other columns.
        """
        if previous is None:
            return cls(corrections)
        table = open_source(previous)
        if missing := {column, *added} - set(table.schema.names):
            raise TableError(f"{previous}: no column {min(missing)!r}; it has another format")
        rows: dict[str, Row] = {}
        for chunk in table.chunks(_CHUNK_ROWS):
            values = [_values(chunk, name) for name in (column, *added)]
            for name, *row in zip(*values, strict=True):
                # A probability of 1 may be that of a reviewed label, which no longer applies.
                if name and row[1] is not None and row[1] < 1.0:
                    rows[name] = tuple(row)
        return cls(corrections, rows)


def _values(chunk: pa.Table, name: str) -> list[Any]:
    """Return a column's values; in a CSV file an empty text is a null, and numbers are texts."""
    values = [value if value != "" else None for value in chunk.column(name).to_pylist()]
    if not name.endswith("_probability"):
        return values
    return [None if value is None else float(value) for value in values]


def write_state(out: str, plan: Mapping[str, Any], digest: str) -> None:
    """Write what the predictions in an output depend on, and its SHA-256, to OUT.json."""
    content = json_bytes(_settings(plan) | {"sha256": digest})
    Storage(f"{out}{_STATE}", setting="--out").write_bytes(content)


def read_state(out: str, setting: str = "--out") -> dict[str, Any]:
    """Return the bundle, column and limit of a merged output, and its SHA-256.

    Raises:
        SourceError: `out` is not the output of `merge_shards`, or was changed since.
    """
    problem = f"{setting} {out}: {out}{_STATE} is missing or invalid; expected an output of bulk"
    try:
        content = Storage(f"{out}{_STATE}", setting=setting, error=SourceError).read_bytes()
        state = json.loads(content)
        is_state = set(state) == {*_SETTINGS, "sha256"}
    except (TypeError, ValueError) as error:
        raise SourceError(problem) from error
    if not is_state:
        raise SourceError(problem)
    known: dict[str, Any] = state
    return known


def _settings(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the predictions for a name depend on; the last part of a bundle is its digest."""
    return {name: plan[name][-64:] if name == "bundle" else plan[name] for name in _SETTINGS}


def usable_previous(previous: str, plan: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the address and SHA-256 of an earlier output; None if it has other settings."""
    state = read_state(previous, "--previous")
    digest = state.pop("sha256")
    if state != _settings(plan):
        say("shard_table", f"{previous} has another bundle, column or limit: classifying all rows")
        return None
    return {"address": previous, "sha256": digest}


def get_previous(previous: Mapping[str, str] | None, folder: Path) -> Path | None:
    """Return a verified copy of an earlier output, if there is one."""
    if previous is None:
        return None
    local = folder / f"previous{Path(previous['address']).suffix}"
    Storage(previous["address"], setting="--previous", error=SourceError).get(local)
    if file_digest(local) != previous["sha256"]:
        raise SourceError(
            f"--previous {previous['address']} was changed after bulk wrote it; run without it"
        )
    return local


def reviewed_labels(address: str) -> dict[str, str]:
    """Return the label that applies to each name of a corrections table, by normal form."""
    table = open_table(address, "--corrections")
    effective = Corrections.of(read_table(table)).effective
    return {key: effective[key].label for key in sorted(effective)}
