"""Protects what validation promises: each thing that can be wrong with the data stops the run
with a sentence of its own, offending rows are shown, and the page opens without a network."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from grocer.artifacts.step import step
from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from grocer.config.stages import DataConfig
from grocer.errors import ExpectationError
from grocer.ingest.run import ingest
from grocer.validation import assets as subjects
from grocer.validation.run import QUARANTINE_ROWS, Report, validate
from tests.fixtures.tables import Table, tables, write_csvs

CONFIG = recipe("tiny").with_settings(
    ["validation.min_products=2", "validation.max_null_fraction=0.3", "data.memory_limit_mb=200"]
)


def run(tmp_path: Path, content: dict[str, Table], config: RunConfig = CONFIG) -> Report:
    """Ingest and validate the tables; the report's files lie in `tmp_path / "report"`."""
    for name in ("tables", "report"):
        (tmp_path / name).mkdir()
    source = write_csvs(tmp_path / "in", content)
    ingest(str(source), config.data, tmp_path / "tables")
    return validate(tmp_path / "tables", config, tmp_path / "report")


def quarantined(tmp_path: Path, table: str) -> list[dict[str, str]]:
    with (tmp_path / "report" / "quarantine" / f"{table}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_good_data_meets_all_and_only_our_lines_are_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = run(tmp_path, tables())
    assert report.success
    assert report.failures == []
    report.require()
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "validation.html",
        "validation.json",
    ]
    found = json.loads((tmp_path / "report" / "validation.json").read_text())
    assert found["success"]
    assert set(found["tables"]) == {"totals", "departments", "aisles", "products", "order_lines"}
    unlabelled = next(
        result
        for result in found["tables"]["products"]["results"]
        if result["expectation_config"]["type"] == "expect_column_values_to_not_be_in_set"
    )
    assert unlabelled["result"]["unexpected_count"] == 1  # `missing`: reported, not a failure
    printed = capfd.readouterr()
    assert printed.err == ""
    assert all(line.startswith("grocer | ") for line in printed.out.splitlines())


def test_the_page_needs_no_network_and_shows_names_as_text(tmp_path: Path) -> None:
    content = tables()
    content["products"].append([5, "<script>alert(1)</script>", 1, 99])
    run(tmp_path, content)
    page = (tmp_path / "report" / "validation.html").read_text()
    assert not re.search(r"""(src|href)\s*=|url\(|@import|<script""", page)
    assert "&lt;script&gt;" in page
    assert "each product&#39;s department is known" in page


def test_a_catalogue_alone_is_checked_without_order_lines(tmp_path: Path) -> None:
    content = {name: tables()[name] for name in ("products", "departments")}
    report = run(tmp_path, content)
    assert report.success
    page = (tmp_path / "report" / "validation.html").read_text()
    assert "order lines read" not in page


def test_order_lines_without_orders_are_checked(tmp_path: Path) -> None:
    content = tables()
    del content["orders"], content["order_products__prior"]
    report = run(tmp_path, content)
    assert report.success
    assert "no order_id is null" in (tmp_path / "report/validation.html").read_text()


def _append(table: str, *rows: list[object]) -> Callable[[dict[str, Table]], None]:
    return lambda content: content[table].extend([*rows])


def _set(table: str, row: int, column: str, value: object) -> Callable[[dict[str, Table]], None]:
    def change(content: dict[str, Table]) -> None:
        content[table][row][content[table][0].index(column)] = value

    return change


FAULTS = {
    "unknown department": (
        _append("products", [5, "Lost", 1, 99]),
        "products: each product's department is known (1 of 5 rows do not fit)",
    ),
    "unknown aisle": (
        _append("products", [5, "Lost", 99, 4]),
        "products: each product's aisle is known (1 of 5 rows do not fit)",
    ),
    "blank name": (
        _set("products", 1, "product_name", " \t "),
        "products: no product_name is blank (1 of 4 rows do not fit)",
    ),
    "no name": (
        _set("products", 4, "product_name", ""),
        "products: no product_name is null (1 of 4 rows do not fit)",
    ),
    "product twice": (
        _append("products", [1, "Again", 1, 4]),
        "products: no product_id stands twice (2 of 5 rows do not fit)",
    ),
    "department twice": (
        _append("departments", [5, "produce"]),
        "departments: no two departments share a name (2 of 4 rows do not fit)",
    ),
    "aisle in two departments": (
        _append("products", [5, "Odd", 1, 16]),
        "aisles: each aisle lies in one department (1 of 3 rows do not fit)",
    ),
    "one department only": (
        lambda content: content.update(products=content["products"][:2]),
        "products lie in at least 2 departments (found 1)",
    ),
    "too few products": (
        lambda content: content.update(products=[content["products"][0], [3, "M", 3, 21]]),
        "at least 2 products have a department to learn from (found 0)",
    ),
    "a day of eight": (
        _set("orders", 2, "order_dow", 7),
        "order_lines: order_dow lies from 0 to 6 (3 of 5 rows do not fit)",
    ),
    "an hour of minus one": (
        _set("orders", 3, "order_hour_of_day", -1),
        "order_lines: order_hour_of_day lies from 0 to 23 (2 of 5 rows do not fit)",
    ),
    "reordered twice": (
        _set("order_products__train", 1, "reordered", 2),
        "order_lines: reordered is one of 0, 1 (1 of 5 rows do not fit)",
    ),
    "an unknown set": (
        _set("orders", 3, "eval_set", "trian"),
        "order_lines: eval_set is one of prior, train, test (2 of 5 rows do not fit)",
    ),
    "too many nulls": (
        _set("orders", 3, "days_since_prior_order", ""),
        "at most 30 % of order lines have a null (found 57.14 %)",
    ),
    "lines of an unknown product": (
        _append("order_products__prior", [11, 999, 4, 0]),
        "at most 0.1 % of order lines name a product or an order that is not there (found 12.5 %)",
    ),
    "a line twice": (
        _append("order_products__prior", [11, 1, 4, 0]),
        "no product stands twice in an order (found 1)",
    ),
    "an order twice": (
        _append("orders", [11, 1, "prior", 2, 0, 23, 7]),
        "no order_id stands twice in orders (found 1)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_a_sentence_and_rows_to_look_at(tmp_path: Path, fault: str) -> None:
    change, sentence = FAULTS[fault]
    content = tables()
    change(content)
    report = run(tmp_path, content)
    assert sentence in report.failures
    with pytest.raises(ExpectationError) as caught:
        report.require()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    if "rows do not fit" in sentence:
        assert quarantined(tmp_path, sentence.partition(":")[0])
    elif "order" in sentence:
        assert quarantined(tmp_path, "order_lines")


def test_offending_rows_are_whole_and_capped(tmp_path: Path) -> None:
    content = tables()
    content["products"] += [[n, f"Plum {n}", 1, 99] for n in range(100, 1300)]
    run(tmp_path, content)
    rows = quarantined(tmp_path, "products")
    assert len(rows) == QUARANTINE_ROWS
    assert rows[0] == {
        "expectation": "each product's department is known",
        "product_id": "100",
        "product_name": "Plum 100",
        "aisle_id": "1",
        "aisle": "fresh fruits",
        "department_id": "99",
        "department": "",
        "purchases": "0",
    }


def test_thresholds_are_of_the_whole_not_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tables()
    _set("orders", 3, "eval_set", "trian")(content)
    (tmp_path / "whole").mkdir()
    (tmp_path / "batches").mkdir()
    whole = run(tmp_path / "whole", content)
    monkeypatch.setattr(subjects, "BATCH_ROWS", 2)
    batches = run(tmp_path / "batches", content)
    assert whole == batches
    rows = [quarantined(tmp_path / name, "order_lines") for name in ("whole", "batches")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2


def test_lines_that_are_all_dropped_still_end_in_a_report(tmp_path: Path) -> None:
    content = tables()
    for row in content["orders"][1:]:
        row[-1] = ""
    report = run(tmp_path, content)
    assert report.failures == ["at most 30 % of order lines have a null (found 100 %)"]
    assert len(pd.read_parquet(tmp_path / "tables" / "order_lines.parquet")) == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from grocer.validation import run as validate
from grocer.config.recipes import recipe
from grocer.artifacts.step import step
validate._write_report = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with step("validate", Path(sys.argv[2])) as out:
    validate.validate(Path(sys.argv[1]), recipe("tiny"), out)
"""


def test_kill_9_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    with step("ingest", tmp_path / "tables") as out:
        ingest(str(write_csvs(tmp_path / "in", tables())), DataConfig(), out)
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "tables"), str(tmp_path / "report")]
    killed = subprocess.run(arguments, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "report").exists()
    with step("validate", tmp_path / "report", {"tables": tmp_path / "tables"}) as out:
        assert validate(tmp_path / "tables", CONFIG, out).success
