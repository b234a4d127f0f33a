"""Each kind of invalid data fails validation with one line, and its rows are quarantined."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from great_expectations.expectations import ExpectColumnValuesToBeBetween

from grocer.artifacts.counts import Counts
from grocer.artifacts.validation_report import ValidationReport
from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from grocer.errors import ExpectationError
from grocer.ingest.run import run as ingest
from grocer.validation import assets
from grocer.validation.run import QUARANTINE_ROWS
from grocer.validation.run import run as validate
from tests.fixtures.tables import Table, tables, write_csvs

CONFIG = recipe("tiny").with_settings(
    ["validation.min_products=2", "validation.max_null_fraction=0.3", "data.memory_limit_mb=200"]
)


def ingest_and_validate(
    tmp_path: Path, content: dict[str, Table], config: RunConfig = CONFIG
) -> ValidationReport:
    """Ingest and validate the tables; the report is in `tmp_path / "report"`."""
    for name in ("tables", "report"):
        (tmp_path / name).mkdir(parents=True)
    source = write_csvs(tmp_path / "in", content)
    ingest(str(source), config.data, tmp_path / "tables")
    return validate(Counts.read(tmp_path / "tables"), config, tmp_path / "report")


def quarantined(tmp_path: Path, table: str) -> list[dict[str, str]]:
    with (tmp_path / "report" / "quarantine" / f"{table}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_valid_data_passes_and_only_progress_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = ingest_and_validate(tmp_path, tables())
    assert report.success
    assert report.failures == ()
    report.require_success()
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "validation.html",
        "validation.json",
    ]
    content = json.loads((tmp_path / "report" / "validation.json").read_text())
    assert content["success"]
    assert set(content["tables"]) == {"totals", "departments", "aisles", "products", "order_lines"}
    unlabelled = next(
        result
        for result in content["tables"]["products"]["results"]
        if result["expectation_config"]["type"] == "expect_column_values_to_not_be_in_set"
    )
    assert unlabelled["result"]["unexpected_count"] == 1  # `missing`: reported, not a failure
    printed = capfd.readouterr()
    assert printed.err == ""
    assert all(line.startswith("grocer | ") for line in printed.out.splitlines())


def test_page_is_self_contained_and_escapes_names(tmp_path: Path) -> None:
    content = tables()
    content["products"].append([5, "<script>alert(1)</script>", 1, 99])
    ingest_and_validate(tmp_path, content)
    page = (tmp_path / "report" / "validation.html").read_text()
    assert not re.search(r"""(src|href)\s*=|url\(|@import|<script""", page)
    assert "&lt;script&gt;" in page
    assert "Violations" in page
    assert "unknown department (1 of 5 rows)" in page


@pytest.mark.parametrize("lines", [[], ["order_products__train", "aisles"]])
def test_tables_without_orders_are_validated(tmp_path: Path, lines: list[str]) -> None:
    names = ["products", "departments", *lines]
    report = ingest_and_validate(tmp_path, {name: tables()[name] for name in names})
    assert report.success
    page = (tmp_path / "report" / "validation.html").read_text()
    assert "Validation passed" in page
    assert ("order lines read" in page, "Null order_id" in page) == (bool(lines), bool(lines))


def _append(table: str, *rows: list[object]) -> Callable[[dict[str, Table]], None]:
    return lambda content: content[table].extend([*rows])


def _set(table: str, row: int, column: str, value: object) -> Callable[[dict[str, Table]], None]:
    def change(content: dict[str, Table]) -> None:
        content[table][row][content[table][0].index(column)] = value

    return change


FAULTS = {
    "unknown department": (
        _append("products", [5, "Lost", 1, 99]),
        "products: unknown department (1 of 5 rows)",
    ),
    "unknown aisle": (
        _append("products", [5, "Lost", 99, 4]),
        "products: unknown aisle (1 of 5 rows)",
    ),
    "blank name": (
        _set("products", 1, "product_name", " \t "),
        "products: blank product_name (1 of 4 rows)",
    ),
    "null name": (
        _set("products", 4, "product_name", ""),
        "products: null product_name (1 of 4 rows)",
    ),
    "duplicate product": (
        _append("products", [1, "Duplicate", 1, 4]),
        "products: duplicate product_id (2 of 5 rows)",
    ),
    "duplicate department": (
        _append("departments", [5, "produce"]),
        "departments: duplicate department (2 of 4 rows)",
    ),
    "aisle in two departments": (
        _append("products", [5, "Odd", 1, 16]),
        "aisles: aisle in several departments (1 of 3 rows)",
    ),
    "one department only": (
        lambda content: content.update(products=content["products"][:2]),
        "departments, minimum 2 (found 1)",
    ),
    "too few products": (
        lambda content: content.update(products=[content["products"][0], [3, "M", 3, 21]]),
        "products with department, minimum 2 (found 0)",
    ),
    "invalid day": (
        _set("orders", 2, "order_dow", 7),
        "order_lines: invalid order_dow, not from 0 to 6 (3 of 5 rows)",
    ),
    "invalid hour": (
        _set("orders", 3, "order_hour_of_day", -1),
        "order_lines: invalid order_hour_of_day, not from 0 to 23 (2 of 5 rows)",
    ),
    "invalid flag": (
        _set("order_products__train", 1, "reordered", 2),
        "order_lines: invalid reordered, not 0 or 1 (1 of 5 rows)",
    ),
    "unknown set": (
        _set("orders", 3, "eval_set", "trian"),
        "order_lines: invalid eval_set, not prior, train or test (2 of 5 rows)",
    ),
    "too many nulls": (
        _set("orders", 3, "days_since_prior_order", ""),
        "order lines with a null value, maximum 30 % (found 57.14 %)",
    ),
    "orphan lines": (
        _append("order_products__prior", [11, 999, 4, 0]),
        "order lines with unknown product_id or order_id, maximum 0.1 % (found 12.5 %)",
    ),
    "duplicate line": (
        _append("order_products__prior", [11, 1, 4, 0]),
        "duplicate order line (found 1)",
    ),
    "duplicate order": (
        _append("orders", [11, 1, "prior", 2, 0, 23, 7]),
        "duplicate order_id (found 1)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_fails_validation_and_its_rows_are_quarantined(tmp_path: Path, fault: str) -> None:
    change, failure = FAULTS[fault]
    content = tables()
    change(content)
    report = ingest_and_validate(tmp_path, content)
    assert failure in report.failures
    with pytest.raises(ExpectationError) as caught:
        report.require_success()
    assert failure in str(caught.value)
    checks = sum(table.statistics.evaluated_expectations for table in report.tables.values())
    assert f"{len(report.failures)} of {checks} expectations" in str(caught.value)
    assert "\n" not in str(caught.value)
    table, is_rows, _ = failure.partition(": ")
    if is_rows:
        assert quarantined(tmp_path, table)
    elif "order" in failure:
        assert quarantined(tmp_path, "order_lines")


def test_quarantined_rows_are_complete_and_limited(tmp_path: Path) -> None:
    content = tables()
    content["products"] += [[n, f"Plum {n}", 1, 99] for n in range(100, 1300)]
    ingest_and_validate(tmp_path, content)
    rows = quarantined(tmp_path, "products")
    assert len(rows) == QUARANTINE_ROWS
    assert rows[0] == {
        "expectation": "unknown department",
        "product_id": "100",
        "product_name": "Plum 100",
        "aisle_id": "1",
        "aisle": "fresh fruits",
        "department_id": "99",
        "department": "",
        "purchases": "0",
    }


def test_thresholds_apply_to_all_batches_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tables()
    _set("orders", 3, "eval_set", "trian")(content)
    (tmp_path / "frame").mkdir()
    (tmp_path / "batches").mkdir()
    frame = ingest_and_validate(tmp_path / "frame", content)
    monkeypatch.setattr(assets, "BATCH_ROWS", 2)
    batches = ingest_and_validate(tmp_path / "batches", content)
    assert frame.failures == batches.failures
    for name, table in frame.tables.items():
        assert table.statistics == batches.tables[name].statistics
    rows = [quarantined(tmp_path / name, "order_lines") for name in ("frame", "batches")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2


def test_report_is_written_when_all_lines_are_dropped(tmp_path: Path) -> None:
    content = tables()
    for row in content["orders"][1:]:
        row[-1] = ""
    report = ingest_and_validate(tmp_path, content)
    assert report.failures == ("order lines with a null value, maximum 30 % (found 100 %)",)
    assert len(pd.read_parquet(tmp_path / "tables" / "order_lines.parquet")) == 0


def test_columns_with_limits_are_compared_as_arrays(tmp_path: Path) -> None:
    ingest_and_validate(tmp_path, tables())
    asset = assets.data_assets(Counts.read(tmp_path / "tables"), CONFIG)[-1]
    [frame] = asset.batches()
    types = frame.dtypes
    limited = {
        item.column
        for item in asset.expectations
        if isinstance(item, ExpectColumnValuesToBeBetween)
    }
    assert len(limited) == 5
    assert {str(types[name]) for name in limited} <= {"int64", "float64"}


SPARK = CONFIG.with_settings(["data.engine=spark"])


@pytest.mark.spark
def test_spark_gives_the_report_of_pandas(tmp_path: Path) -> None:
    content = tables()
    content["order_products__prior"] += [[11, 4, 0, 7], [12, 4, -1, ""]]
    content["orders"][2][2] = "other"
    reports = {}
    for name, config in (("duckdb", CONFIG), ("spark", SPARK)):
        report = ingest_and_validate(tmp_path / name, content, config)
        rows = sorted(map(str, quarantined(tmp_path / name, "order_lines")))
        reports[name] = (report.failures, _comparable(report), rows)
    assert reports["spark"] == reports["duckdb"]
    assert len(reports["duckdb"][0]) == 4


def _comparable(report: ValidationReport) -> dict[str, list[dict[str, object]]]:
    """Return the results by table, without what depends on the engine or the order of rows."""
    lists = (
        "partial_unexpected_index_list",
        "partial_unexpected_list",
        "partial_unexpected_counts",
    )
    return {
        name: [
            {
                "type": result["expectation_config"]["type"],
                "notes": result["expectation_config"]["notes"],
                "success": result["success"],
                "values": sorted(map(str, result["result"].get("partial_unexpected_list", []))),
                **{key: value for key, value in result["result"].items() if key not in lists},
            }
            for result in table.results
        ]
        for name, table in report.tables.items()
    }


CONNECT = """
import sys
from pathlib import Path
from tests.grocer.validation.test_run import SPARK, ingest_and_validate
from tests.fixtures.tables import tables
ingest_and_validate(Path(sys.argv[1]), tables(), SPARK).require_success()
from pyspark.sql import SparkSession
assert "connect" in type(SparkSession.builder.getOrCreate()).__module__
"""


@pytest.mark.spark
def test_spark_connect_gives_the_same_counts(tmp_path: Path) -> None:
    """PySpark starts a Spark Connect server on this machine."""
    environment = {**os.environ, "SPARK_REMOTE": "local[1]"}
    command = [sys.executable, "-c", CONNECT, str(tmp_path / "spark")]
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[3])
    ingest_and_validate(tmp_path / "duckdb", tables())
    counts = {
        name: Counts.read(tmp_path / name / "tables").model_dump() for name in ("duckdb", "spark")
    }
    assert counts["spark"] == counts["duckdb"]
