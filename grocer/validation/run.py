"""Says what is wrong with the data before a GPU is paid for, and stops the run there."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from grocer import progress as console
from grocer.config.run import RunConfig
from grocer.errors import ExpectationError
from grocer.io.atomic import read_json, whole_file, write_json
from grocer.reports.html import render

if TYPE_CHECKING:  # great_expectations takes seconds to import
    from grocer.validation.assets import Subject
    from grocer.validation.gx import Checker, Result, Row

QUARANTINE_ROWS = 1_000
EXAMPLES = 5


@dataclass(frozen=True)
class Report:
    """What validation found: whether all is well, and a sentence for each failure."""

    success: bool
    failures: list[str]

    def require(self) -> None:
        """Do nothing if all expectations were met.

        Raises:
            ExpectationError: names each expectation that was not.
        """
        if not self.success:
            raise ExpectationError(
                f"{len(self.failures)} of the data's expectations not met: "
                f"{'; '.join(self.failures)}; the offending rows are in quarantine/"
            )


def validate(tables: Path, config: RunConfig, out: Path) -> Report:
    """Check the tables that `ingest` wrote, and write what was found into `out`.

    `validation.json` holds Great Expectations' results, `validation.html` the same for people,
    `quarantine/TABLE.csv` up to `QUARANTINE_ROWS` offending rows of a table. At most a million
    order lines are held in memory at a time.

    Raises:
        CatalogueError: the configuration wants aisles, and no product has one.
    """
    from grocer.validation.assets import TOTALS, subjects
    from grocer.validation.gx import Checker

    counts = read_json(tables / "counts.json")
    checker = Checker()
    results: dict[str, list[Result]] = {}
    quarantine: dict[str, list[Row]] = {}
    failures: list[str] = []
    for subject in subjects(tables, counts, config):
        found = results[subject.name] = checker.check(subject)
        failed = [index for index, result in enumerate(found) if not result["success"]]
        for index in failed:
            result = found[index]
            of = "" if subject.name == TOTALS else f"{subject.name}: "
            failures.append(of + sentence(result))
            console.say("validate", f"not met · {failures[-1]}")
            limit = QUARANTINE_ROWS // len(failed)
            table, rows = _offending(checker, tables, subject, index, limit)
            result["examples"] = _telling(rows[:EXAMPLES], subject.expectations[index].column)
            notes = result["expectation_config"]["notes"]
            quarantine.setdefault(table, []).extend({"expectation": notes, **row} for row in rows)
        met = f"{len(found) - len(failed)} of {len(found)} expectations met"
        console.say("validate", f"{subject.name}: {met}, {subject.rows:,} rows")
    report = Report(success=not failures, failures=failures)
    for table, rows in quarantine.items():
        _write_rows(out / "quarantine" / f"{table}.csv", rows[:QUARANTINE_ROWS])
    _write_report(out, report, counts, results, checker.version)
    return report


def sentence(result: Result) -> str:
    """What was expected, and what was found instead, in words."""
    found = result["result"]
    config = result["expectation_config"]
    if "observed_value" in found:
        what = f"found {observed(result)}"
    else:
        what = f"{found['unexpected_count']:,} of {found['element_count']:,} rows do not fit"
    return f"{config['notes']} ({what})"


def observed(result: Result) -> str:
    """The one value that an expectation of a whole column looks at, as people read it."""
    value = result["result"]["observed_value"]
    if result["expectation_config"]["kwargs"]["column"].endswith("_fraction"):
        return f"{100 * value:.4g} %"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _telling(rows: Sequence[Row], column: str) -> list[Row]:
    """Rows with the column that offends first, then those with nulls."""
    names = list(rows[0]) if rows else []
    nulls = [name for name in names if any(row[name] is None for row in rows)]
    order = dict.fromkeys(name for name in (column, *nulls, *names) if name in names)
    return [{name: row[name] for name in order} for row in rows]


def _offending(
    checker: Checker, tables: Path, subject: Subject, index: int, limit: int
) -> tuple[str, list[Row]]:
    """The table whose rows offend against a subject's expectation, and the first such rows.

    Figures about the whole have no rows; lines that ingest rejected stand for them.
    """
    from grocer.validation.assets import ORDER_LINES, TOTALS
    from grocer.validation.gx import records
    from grocer.validation.suites import REASONS

    expectation = subject.expectations[index]
    reasons = (expectation.meta or {}).get(REASONS)
    if subject.name != TOTALS:
        return subject.name, checker.offending(subject, expectation, limit)
    rejected = tables / "rejected.parquet"
    if not reasons or not rejected.exists():
        return TOTALS, []
    rows = pd.read_parquet(rejected, dtype_backend="numpy_nullable")
    rows = rows[rows["reason"].isin(reasons)].head(limit)
    return ORDER_LINES, records(rows.drop(columns="reason"))


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _write_report(
    out: Path,
    report: Report,
    counts: Mapping[str, Any],
    results: Mapping[str, Sequence[Result]],
    version: str,
) -> None:
    """Write `validation.json` and `validation.html`."""
    tables = {}
    for name, found in results.items():
        met = sum(result["success"] for result in found)
        tables[name] = {
            "success": met == len(found),
            "statistics": {
                "evaluated_expectations": len(found),
                "successful_expectations": met,
                "unsuccessful_expectations": len(found) - met,
                "success_percent": 100 * met / len(found),
            },
            "results": found,
        }
    value = {
        "success": report.success,
        "great_expectations_version": version,
        "failures": report.failures,
        "tables": tables,
    }
    write_json(out / "validation.json", value)
    words = {"sentence": sentence, "observed": observed}
    page = render("validation.html", report=report, counts=counts, tables=tables, **words)
    with whole_file(out / "validation.html") as part:
        part.write_text(page, encoding="utf-8")
