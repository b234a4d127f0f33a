"""Counts of the rows that ingest read, joined and dropped."""

from __future__ import annotations

from typing import ClassVar

from grocer.artifacts.base import Artifact, Count, Record


class OrderLineCounts(Record):
    """Order lines: `read = orphans + joined`, and `kept` is `joined` minus dropped nulls."""

    read: Count
    orphans: Count
    """Lines whose product or order is unknown."""
    joined: Count
    with_nulls: Count
    kept: Count


class OrphanCounts(Record):
    """Rows whose foreign key has no match."""

    products_without_department: Count
    products_without_aisle: Count
    order_lines_without_product: Count
    order_lines_without_order: Count


class Counts(Artifact):
    """`counts.json` of ingest."""

    FILE: ClassVar = "counts.json"
    order_lines: OrderLineCounts
    products: Count
    departments: Count
    aisles: Count
    orphans: OrphanCounts
    nulls: dict[str, Count]
    """Joined order lines with a null, by column."""
    duplicates: dict[str, Count]
    """Rows that repeat a key, by table."""
    notes: tuple[str, ...]
    """Missing parts of the source, and how each was handled."""
