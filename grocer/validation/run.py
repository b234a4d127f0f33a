"""Validate the ingested tables, so that invalid data stops the run before training."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from grocer import progress
from grocer.artifacts.counts import Counts
from grocer.artifacts.validation_report import Statistics, TableReport, ValidationReport
from grocer.config.run import RunConfig
from grocer.io.atomic import output_file
from grocer.reports.validation import failure, validation_page
from grocer.validation.assets import ORDER_LINES, TOTALS, Asset, data_assets
from grocer.validation.gx import Checker, Result, Row, records
from grocer.validation.suites import REJECTIONS, Expectation

QUARANTINE_ROWS = 1_000
EXAMPLES = 5


def run(tables: Counts, config: RunConfig, out: Path) -> ValidationReport:
    """Validate the tables of ingest, and write the report to `out`.

    Writes `validation.json` (with Great Expectations' results), `validation.html`, and
    `quarantine/TABLE.csv` with up to `QUARANTINE_ROWS` rows of a table that violate expectations.
    At most 750,000 order lines are in memory at a time.

    Raises:
        CatalogueError: the configuration needs aisles, and no product has one.
    """
    checker = Checker()
    reports: dict[str, TableReport] = {}
    quarantine: dict[str, list[Row]] = {}
    failures: list[str] = []
    for asset in data_assets(tables, config):
        results = checker.check(asset)
        pairs = zip(asset.expectations, results, strict=True)
        failed = [(expectation, result) for expectation, result in pairs if not result["success"]]
        for expectation, result in failed:
            failures.append(failure(result, "" if asset.name == TOTALS else asset.name))
            progress.say("validate", f"failed · {failures[-1]}")
            limit = QUARANTINE_ROWS // len(failed)
            table, rows = _violations(checker, tables.directory, asset, expectation, limit)
            result["examples"] = _reorder(rows[:EXAMPLES], expectation.column)
            violation = {"expectation": expectation.notes}
            quarantine.setdefault(table, []).extend(violation | row for row in rows)
        reports[asset.name] = _table_report(results)
        passed = f"{len(results) - len(failed)} of {len(results)} expectations met"
        progress.say("validate", f"{asset.name}: {passed}, {asset.rows:,} rows")
    report = ValidationReport(
        success=not failures,
        great_expectations_version=checker.version,
        failures=tuple(failures),
        tables=reports,
        corrections=tables.corrections,
    )
    for table, rows in quarantine.items():
        if rows:
            with output_file(out / "quarantine" / f"{table}.csv") as part:
                pd.DataFrame(rows[:QUARANTINE_ROWS], dtype=object).to_csv(part, index=False)
    report.write(out)
    with output_file(out / "validation.html") as part:
        part.write_text(validation_page(report, tables), encoding="utf-8")
    return report


def _violations(
    checker: Checker, tables: Path, asset: Asset, expectation: Expectation, limit: int
) -> tuple[str, list[Row]]:
    """Return the table whose rows violate an expectation, and the first such rows.

    The totals have no rows of their own: these are order lines that ingest rejected.
    """
    if asset.name != TOTALS:
        return asset.name, checker.violations(asset, expectation, limit)
    reasons = (expectation.meta or {}).get(REJECTIONS)
    rejected = tables / "rejected.parquet"
    if not reasons or not rejected.exists():
        return TOTALS, []
    rows = pd.read_parquet(rejected, dtype_backend="numpy_nullable")
    rows = rows[rows["reason"].isin(reasons)].head(limit)
    return ORDER_LINES, records(rows.drop(columns="reason"))


def _reorder(rows: Sequence[Row], column: str) -> list[Row]:
    """Put the checked column first, then columns with nulls."""
    names = list(rows[0]) if rows else []
    nulls = [name for name in names if any(row[name] is None for row in rows)]
    order = dict.fromkeys(name for name in (column, *nulls, *names) if name in names)
    return [{name: row[name] for name in order} for row in rows]


def _table_report(results: Sequence[Result]) -> TableReport:
    evaluated, passed = len(results), sum(result["success"] for result in results)
    statistics = Statistics(
        evaluated_expectations=evaluated,
        successful_expectations=passed,
        unsuccessful_expectations=evaluated - passed,
        success_percent=100 * passed / evaluated,
    )
    success = passed == evaluated
    return TableReport(success=success, statistics=statistics, results=tuple(results))
