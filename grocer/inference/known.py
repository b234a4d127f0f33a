"""Predictions that need no model: labels of reviewers, and predictions of an earlier output.

OUT  OUT.json  the output of bulk, and what its predictions depend on
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from pydantic import ValidationError

from grocer.artifacts.base import Record
from grocer.errors import SourceError, TableError
from grocer.ingest.corrections import Corrections, open_table, read_table
from grocer.io.atomic import file_digest, json_bytes
from grocer.io.storage import Storage
from grocer.io.tables import open_source
from grocer.model.prompts.product_names import name_key
from grocer.progress import say

_STATE = ".json"
"""Suffix of the file next to the output with its `State`."""
Row = tuple[Any, ...]
"""Values of the columns that classification adds."""


@dataclass(frozen=True)
class Known:
    """Rows by name; a reviewed label comes before an earlier prediction."""

    corrections: Mapping[str, str]
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
    ) -> Self:
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
        for chunk in table.chunks():
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


class State(Record):
    """Content of OUT.json: what the predictions in an output depend on, and its SHA-256."""

    bundle: str
    """Digest."""
    column: str
    min_probability: float
    sha256: str

    @classmethod
    def of(cls, plan: Mapping[str, Any], sha256: str) -> Self:
        """Return the state of an output with this plan; the last part of a bundle is its digest."""
        settings = {name: plan[name] for name in ("column", "min_probability")}
        return cls(bundle=plan["bundle"][-64:], **settings, sha256=sha256)


def write_state(out: str, plan: Mapping[str, Any], digest: str) -> None:
    """Write OUT.json."""
    content = json_bytes(State.of(plan, digest).model_dump())
    Storage(f"{out}{_STATE}", setting="--out").write_bytes(content)


def read_state(out: str, setting: str = "--out") -> State:
    """Return the state of a merged output.

    Raises:
        SourceError: `out` is not the output of `merge_shards`.
    """
    storage = Storage(f"{out}{_STATE}", setting=setting, error=SourceError)
    try:
        return State.model_validate_json(storage.read_bytes())
    except ValidationError as error:
        raise SourceError(
            f"{setting} {out}: {out}{_STATE} is invalid; expected an output of bulk"
        ) from error


def usable_previous(previous: str, plan: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the address and SHA-256 of an earlier output; None if it has other settings."""
    state = read_state(previous, "--previous")
    if state != State.of(plan, state.sha256):
        say("shard_table", f"{previous} has another bundle, column or limit: classifying all rows")
        return None
    return {"address": previous, "sha256": state.sha256}


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
