"""The corrections table: the labels that reviewers gave to product names.

    CORRECTIONS/20261130T064200Z-1f0c6e2a9b34.parquet ...

Each import adds one file, and no file is ever changed. A correction applies to every product
whose name has the same normal form. It holds until the same reviewer gives another label.
If reviewers disagree, none of their corrections applies until a resolution is imported.
"""

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from grocer import progress
from grocer.artifacts.base import Record
from grocer.artifacts.counts import AppliedCorrection, CorrectionCounts
from grocer.errors import SourceError, TableError
from grocer.io.atomic import atomic_file, json_digest
from grocer.io.storage import Storage
from grocer.model.prompts.product_names import name_key

RESOLUTION = "resolution"
"""`source` of a correction that overrides all earlier ones of its name."""
UNCORRECTED = "uncorrected"
"""Column with the label of the source, in tables whose labels may be corrected."""
_MAX_LISTED = 1_000


class Correction(Record):
    """The label that one reviewer gave to one product name."""

    name: str
    label: str
    who: str
    when: str
    """UTC time, such as 2026-11-30T06:42:00Z."""
    source: str
    """Where the product was reviewed, such as `suspected label`, or `RESOLUTION`."""
    previous_label: str
    """Label before the review; empty if there was none."""


_SCHEMA = pa.schema([(field, pa.string()) for field in Correction.model_fields])


@dataclass(frozen=True)
class Corrections:
    """The corrections that apply, by normal form of the name."""

    effective: Mapping[str, Correction]
    conflicts: Mapping[str, tuple[Correction, ...]]
    """The last correction of each reviewer, of names on which they disagree."""

    @classmethod
    def of(cls, table: Iterable[Correction]) -> Self:
        """Resolve the rows of a corrections table."""
        effective, conflicts = {}, {}
        for key, reviewers in latest_rows(table).items():
            rows = tuple(reviewers.values())
            if len({row.label for row in rows}) > 1:
                conflicts[key] = rows
            else:
                effective[key] = rows[-1]
        return cls(effective, conflicts)


def latest_rows(table: Iterable[Correction]) -> dict[str, dict[str, Correction]]:
    """Return each reviewer's last correction of each name, by normal form and reviewer.

    Corrections before a resolution are left out; of equal times, the later row counts.
    """
    latest: dict[str, dict[str, Correction]] = defaultdict(dict)
    for row in sorted(table, key=lambda row: row.when):
        reviewers = latest[name_key(row.name)]
        if row.source == RESOLUTION:
            reviewers.clear()
        reviewers.pop(row.who, None)  # so that the last row is the latest one
        reviewers[row.who] = row
    return latest


def open_table(address: str, setting: str = "--corrections") -> Storage:
    """Return the corrections table at a local path or an `s3://` or `gs://` URI.

    Raises:
        SourceError: the address is another URI, or a local file.
    """
    protocol, is_uri, _ = address.partition("://")
    if (is_uri and protocol not in ("s3", "gs", "file")) or Path(address).is_file():
        raise SourceError(f"{setting} {address}: expected a directory, or an s3:// or gs:// URI")
    return Storage(address, setting=setting, error=SourceError)


def read_table(table: Storage) -> list[Correction]:
    """Return the rows of all imports, the oldest import first; raises what `read_imports` does."""
    return [row for rows in read_imports(table).values() for row in rows]


def read_imports(table: Storage) -> dict[str, list[Correction]]:
    """Return the rows of each import by the name of its file, the oldest import first.

    Raises:
        SourceError: no such directory, or a file that is not a part of a corrections table.
    """
    imports: dict[str, list[Correction]] = {}
    for name in sorted(name for name in table.list() if name.endswith(".parquet")):
        try:
            # Without threads: one that releases a Python object while the interpreter exits aborts
            # the process (apache/arrow#34314). `pre_buffer` would start one.
            content = pa.BufferReader(table.read_bytes(name))
            rows = pq.ParquetFile(content, pre_buffer=False).read(use_threads=False).to_pylist()
            imports[name] = [Correction.model_validate(row) for row in rows]
        except (pa.ArrowException, ValueError) as error:
            raise SourceError(
                f"{table.setting} {table.address}: {name} is not part of a corrections table "
                f"({error}); remove it"
            ) from error
    return imports


def count_since(table: Storage, since: datetime | None) -> int:
    """Return the number of names with a correction that applies and was imported since a time.

    Raises what `read_imports` does.
    """
    imports, first = read_imports(table), _stamp(since) if since else ""
    new = {row for name, rows in imports.items() if name >= first for row in rows}
    effective = Corrections.of(row for rows in imports.values() for row in rows).effective
    return sum(row in new for row in effective.values())


def append(table: Storage, rows: Sequence[Correction], now: datetime | None = None) -> None:
    """Add a file with `rows` to the table; the files of earlier imports are not touched."""
    content = [row.model_dump() for row in rows]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(content, schema=_SCHEMA), file, compression="zstd")
    name = f"{_stamp(now or datetime.now(UTC))}-{json_digest(content)[:12]}.parquet"
    table.write_bytes(file.getvalue(), name)


def _stamp(time: datetime) -> str:
    """Return a time (UTC) as at the start of a file's name."""
    return f"{time:%Y%m%dT%H%M%SZ}"


def correct_products(address: str, tables: Path, label: str) -> CorrectionCounts:
    """Apply a corrections table to the labels in `products.parquet`.

    The column `UNCORRECTED` keeps the label of the source. Order lines are not changed.

    Args:
        tables: directory with ingest's tables.
        label: column with the label, `department` or `aisle`.

    Raises:
        SourceError: the corrections table cannot be read.
        TableError: a correction to a label that the source does not have.
    """
    rows = read_table(open_table(address, "data.corrections"))
    corrections = Corrections.of(rows)
    known = pq.read_table(tables / f"{label}s.parquet").to_pydict()
    ids = dict(zip(map(_single_spaces, known[label]), known[f"{label}_id"], strict=True))
    products = pq.read_table(tables / "products.parquet")
    labels, numbers = products.column(label).to_pylist(), products.column(f"{label}_id").to_pylist()
    changed: dict[str, list[str]] = defaultdict(list)
    confirmed, matched = set(), set()
    for i, name in enumerate(products.column("product_name").to_pylist()):
        key = name_key(name or "")
        correction = corrections.effective.get(key)
        matched.add(key)
        if correction is None:
            continue
        if correction.label not in ids:
            raise _unknown_label(address, correction, label)
        if _single_spaces(labels[i]) == correction.label:
            confirmed.add(key)
            continue
        changed[key].append(_single_spaces(labels[i]))
        labels[i], numbers[i] = correction.label, ids[correction.label]
    _write_products(tables, products, {label: labels, f"{label}_id": numbers}, label)
    counts = CorrectionCounts(
        digest=json_digest([row.model_dump() for row in rows]),
        rows=len(rows),
        names=len(corrections.effective),
        changed_names=len(changed),
        changed_products=sum(map(len, changed.values())),
        confirmed_names=len(confirmed - set(changed)),
        unmatched_names=len(set(corrections.effective) - matched),
        conflicts=tuple(sorted(rows[0].name for rows in corrections.conflicts.values())),
        listed=tuple(
            AppliedCorrection(
                name=row.name,
                source_label=labels[0],
                label=row.label,
                who=row.who,
                when=row.when,
                products=len(labels),
            )
            for key in sorted(changed)[:_MAX_LISTED]
            for row, labels in [(corrections.effective[key], changed[key])]
        ),
    )
    text = f"{counts.changed_products:,} products relabelled, {counts.unmatched_names:,} names"
    progress.say("ingest", f"corrections: {text} not found, {len(counts.conflicts):,} conflicts")
    return counts


def _unknown_label(address: str, correction: Correction, label: str) -> TableError:
    return TableError(
        f"data.corrections {address}: {correction.name!r} has the label {correction.label!r}, "
        f"which is not a {label} of the data; import a correction with one of its {label}s"
    )


def _write_products(
    tables: Path, products: pa.Table, columns: Mapping[str, list[Any]], label: str
) -> None:
    """Write the products with new columns; `UNCORRECTED` keeps the old one of the label."""
    products = products.append_column(UNCORRECTED, products.column(label))
    for name, values in columns.items():
        field, position = products.schema.field(name), products.schema.get_field_index(name)
        products = products.set_column(position, name, pa.array(values, field.type))
    with atomic_file(tables / "products.parquet") as part:
        pq.write_table(products, part, compression="zstd")


def _single_spaces(label: str | None) -> str:
    return " ".join((label or "").split())
