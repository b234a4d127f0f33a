"""Results of validating the tables with Great Expectations."""

from __future__ import annotations

from typing import Any, ClassVar

from grocer.artifacts.base import Artifact, Count, Record
from grocer.artifacts.counts import CorrectionCounts
from grocer.errors import ExpectationError


class Statistics(Record):
    """Number of expectations by outcome, named as Great Expectations names them."""

    evaluated_expectations: Count
    successful_expectations: Count
    unsuccessful_expectations: Count
    success_percent: float


class TableReport(Record):
    """The expectations of one table."""

    success: bool
    statistics: Statistics
    results: tuple[dict[str, Any], ...]
    """Great Expectations' result of each, with `examples` of rows where it failed."""


class ValidationReport(Artifact):
    """`validation.json` of validate."""

    FILE: ClassVar = "validation.json"
    success: bool
    great_expectations_version: str
    failures: tuple[str, ...]
    """One line for each failed expectation."""
    tables: dict[str, TableReport]
    corrections: CorrectionCounts | None = None
    """None: no corrections table is configured."""

    def require_success(self) -> None:
        """Raise an error unless all expectations were met.

        Raises:
            ExpectationError: lists the failed expectations.
        """
        if not self.success:
            total = sum(table.statistics.evaluated_expectations for table in self.tables.values())
            raise ExpectationError(
                f"validation failed: {len(self.failures)} of {total} expectations not met: "
                f"{'; '.join(self.failures)}; violating rows, if any, are in quarantine/"
            )
