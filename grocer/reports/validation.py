"""The validation report as a page, and its failures as single lines."""

from collections.abc import Mapping
from typing import Any

from grocer.artifacts.counts import Counts
from grocer.artifacts.validation_report import ValidationReport
from grocer.reports.html import render


def validation_page(report: ValidationReport, counts: Counts) -> str:
    """Return a self-contained HTML page; all values are escaped."""
    evaluated = sum(table.statistics.evaluated_expectations for table in report.tables.values())
    return render(
        "validation.html",
        report=report,
        counts=counts,
        evaluated=evaluated,
        failure=failure,
        observed=observed,
    )


def failure(result: Mapping[str, Any], table: str = "") -> str:
    """Return one line about a failed expectation, from Great Expectations' result."""
    found = result["result"]
    if "observed_value" in found:
        detail = f"found {observed(result)}"
    else:
        detail = f"{found['unexpected_count']:,} of {found['element_count']:,} rows"
    return f"{table}{': ' if table else ''}{result['expectation_config']['notes']} ({detail})"


def observed(result: Mapping[str, Any]) -> str:
    """Format the value that an expectation of a whole column checks."""
    value = result["result"]["observed_value"]
    if result["expectation_config"]["kwargs"]["column"].endswith("_fraction"):
        return f"{100 * value:.4g} %"
    return f"{value:,}" if isinstance(value, int) else str(value)
