"""Runs the expectations over the ingested tables and stops the run where one is not met."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq

from grocer import console
from grocer.config import RunConfig
from grocer.errors import ExpectationError
from grocer.files import read_json, whole_file, write_json
from grocer.page import render

if TYPE_CHECKING:
    from grocer.expectations import Expectation

BATCH_ROWS = 1_000_000
QUARANTINE_ROWS = 1_000
EXAMPLES = 5

Result = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A table, the columns that its expectations need, and where its rows come from."""

    name: str
    rows: int
    batches: Callable[[], Iterator[pd.DataFrame]]
    expectations: list[Expectation]


@dataclass(frozen=True)
class Report:
    """What validation found."""

    success: bool
    failures: list[str]

    def require(self) -> None:
        """Do nothing if all expectations were met.

        Raises:
            ExpectationError: names each expectation that was not.
        """
        if not self.success:
            raise ExpectationError(
                f"{len(self.failures)} expectation(s) not met: {'; '.join(self.failures)}"
            )


def validate(tables: Path, config: RunConfig, out: Path) -> Report:
    """Check what `ingest` wrote; writes `validation.json`, `validation.html`, `quarantine/`."""
    runner = _Runner()
    results: dict[str, list[Result]] = {}
    quarantine: dict[str, list[Result]] = {}
    failures = []
    for subject in _subjects(tables, config):
        results[subject.name] = merged = runner.check(subject)
        for expectation, result in zip(subject.expectations, merged, strict=True):
            if result["success"]:
                continue
            failures.append(_sentence(subject.name, result))
            console.say("validate", f"NOT MET · {failures[-1]}")
            rows = runner.offending(subject, expectation)
            result["result"]["examples"] = rows[:EXAMPLES]
            quarantine.setdefault(subject.name, []).extend(
                {"expectation": result["expectation_config"]["notes"], **row} for row in rows
            )
        met = sum(result["success"] for result in merged)
        console.say(
            "validate", f"{subject.name}: {subject.rows:,} rows, {met} of {len(merged)} met"
        )
    report = Report(success=not failures, failures=failures)
    write_json(out / "validation.json", {"success": report.success, "tables": results})
    for name, rows in quarantine.items():
        _write_quarantine(out / "quarantine" / f"{name}.csv", rows[:QUARANTINE_ROWS])
    page = render("validation.html", success=report.success, failures=failures, tables=results)
    with whole_file(out / "validation.html") as part:
        part.write_text(page)
    return report


class _Runner:
    """Great Expectations over pandas frames: no telemetry, no files, no progress bars."""

    def __init__(self) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self.gx = gx
        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = ProgressBarsConfig(
            globally=False, metric_calculations=False
        )
        self.source = self.context.data_sources.add_pandas("tables")
        self.definitions: dict[str, Any] = {}

    def check(self, subject: Subject) -> list[Result]:
        """One merged result for each expectation, over all of the subject's batches."""
        merged: list[Result] = []
        ticker = console.Ticker("validate", subject.rows, f"rows of {subject.name}", every=5.0)
        done = 0
        for frame in subject.batches():
            results = self._validate(subject, frame, subject.expectations, "SUMMARY")
            merged = [*map(_merge, merged, results)] if merged else results
            done += len(frame)
            if subject.rows > BATCH_ROWS:
                ticker.at(done)
        return merged

    def offending(self, subject: Subject, expectation: Expectation) -> list[Result]:
        """Up to `QUARANTINE_ROWS` rows that offend against one expectation."""
        rows: list[Result] = []
        for frame in subject.batches():
            [result] = self._validate(subject, frame, [expectation], "COMPLETE")
            index = result["result"].get("unexpected_index_list") or []
            rows += frame.loc[index[: QUARANTINE_ROWS - len(rows)]].to_dict("records")
            if len(rows) >= QUARANTINE_ROWS:
                break
        return rows

    def _validate(
        self, subject: Subject, frame: pd.DataFrame, expectations: list[Expectation], detail: str
    ) -> list[Result]:
        if subject.name not in self.definitions:
            asset = self.source.add_dataframe_asset(subject.name)
            self.definitions[subject.name] = asset.add_batch_definition_whole_dataframe("all")
        batch = self.definitions[subject.name].get_batch({"dataframe": frame})
        results = []
        for expectation in expectations:
            outcome = batch.validate(expectation, result_format=detail).to_json_dict()
            error = outcome["exception_info"]
            assert not error.get("exception_message"), error
            results.append(outcome)
        return results


def _merge(a: Result, b: Result) -> Result:
    """Two batches' results of one row-wise expectation as one; thresholds apply to the whole."""
    counts = {
        key: a["result"].get(key, 0) + b["result"].get(key, 0)
        for key in ("element_count", "unexpected_count", "missing_count")
    }
    present = counts["element_count"] - counts["missing_count"]
    share = counts["unexpected_count"] / present if present else 0.0
    mostly = a["expectation_config"]["kwargs"].get("mostly", 1.0)
    examples = a["result"].get("partial_unexpected_list", [])
    examples = examples or b["result"].get("partial_unexpected_list", [])
    result = {**counts, "unexpected_percent": 100 * share, "partial_unexpected_list": examples}
    return {**a, "success": share <= 1 - mostly, "result": result}


def _sentence(table: str, result: Result) -> str:
    found = result["result"]
    if table == "totals":
        share = f"found {found['partial_unexpected_list'][0]:,.6g}"
    elif "observed_value" in found:
        share = f"found {found['observed_value']}"
    else:
        share = f"{found['unexpected_count']:,} of {found['element_count']:,} rows do not fit"
    return f"{table}: {result['expectation_config']['notes']} ({share})"


def _write_quarantine(path: Path, rows: list[Result]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _subjects(tables: Path, config: RunConfig) -> list[Subject]:
    """What is checked, smallest first, from the ingested files."""
    from grocer import expectations

    counts = read_json(tables / "counts.json")
    departments = pd.read_parquet(tables / "departments.parquet")
    aisles = pd.read_parquet(tables / "aisles.parquet")
    products = pd.read_parquet(tables / "products.parquet")
    lines = pq.ParquetFile(tables / "order_lines.parquet")
    spread = products.groupby("aisle_id")["department_id"].nunique()
    aisles["departments"] = aisles["aisle_id"].map(spread).fillna(0)
    has_lines = counts["order_lines"]["read"] > 0
    subjects = [
        _whole("totals", _totals(products, counts, config), expectations.totals(config, has_lines)),
        _whole("departments", departments, expectations.departments()),
        _whole("aisles", aisles, expectations.aisles()),
        _whole("products", products, expectations.products(config, len(aisles) > 0)),
    ]
    if has_lines:
        with_orders = "user_id" in lines.schema_arrow.names
        checks = expectations.order_lines(with_orders)
        columns = [check.column for check in checks]

        def batches() -> Iterator[pd.DataFrame]:
            for batch in lines.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(columns))):
                yield batch.to_pandas()

        subjects.append(Subject("order_lines", lines.metadata.num_rows, batches, checks))
    return subjects


def _whole(name: str, frame: pd.DataFrame, checks: list[Expectation]) -> Subject:
    return Subject(name, len(frame), lambda: iter([frame]), checks)


def _totals(products: pd.DataFrame, counts: dict[str, Any], config: RunConfig) -> pd.DataFrame:
    """One row of figures about the whole."""
    label = products[config.catalogue.label].dropna()
    labelled = label[~label.isin(config.catalogue.unlabelled)]
    lines = counts["order_lines"]
    row = {
        "labelled_products": len(labelled),
        "labels": labelled.nunique(),
        "null_fraction": lines["with_nulls"] / max(lines["joined"], 1),
        "orphan_fraction": lines["orphans"] / max(lines["read"], 1),
        "repeated_lines": counts["duplicates"]["order_lines"],
        "repeated_orders": counts["duplicates"]["orders"],
    }
    return pd.DataFrame([row])
