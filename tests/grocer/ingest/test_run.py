"""Ingest accepts each documented shape of source, and leaves no incomplete output."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from grocer.artifacts import step
from grocer.artifacts.counts import Counts, OrderLineCounts
from grocer.config.stages import ColumnMapping, DataConfig
from grocer.errors import ConfigError, GrocerError, OutputError, SourceError, TableError
from grocer.ingest import run as ingest_run
from tests.fixtures.ingest import CONFIG, ingest, read
from tests.fixtures.tables import tables, write_csvs

FILES = {"order_lines", "products", "aisles", "departments"}


def test_six_files_are_joined_and_lines_with_nulls_dropped(tmp_path: Path) -> None:
    counts = ingest(write_csvs(tmp_path / "in", tables()), tmp_path / "out")

    expected = OrderLineCounts(read=7, orphans=0, joined=7, with_nulls=2, kept=5)
    assert counts.order_lines == expected
    assert counts.nulls["days_since_prior_order"] == 2
    assert (counts.products, counts.departments, counts.aisles) == (4, 3, 3)
    assert counts.notes == ()
    assert Counts.read(tmp_path / "out").model_dump() == counts.model_dump()
    lines = read(tmp_path / "out", "order_lines")
    assert lines.iloc[0].to_dict() == {
        "order_id": 11,
        "product_id": 1,
        "product_name": "Organic Bananas",
        "aisle": "fresh fruits",
        "department": "produce",
        "add_to_cart_order": 1,
        "reordered": 1,
        "user_id": 1,
        "eval_set": "prior",
        "order_number": 2,
        "order_dow": 0,
        "order_hour_of_day": 23,
        "days_since_prior_order": 7.0,
    }
    products = read(tmp_path / "out", "products")
    assert products["purchases"].tolist() == [2, 2, 1, 0]
    assert products["product_id"].dtype == products["purchases"].dtype == "int64"
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_order_lines_without_orders_are_accepted_with_a_note(tmp_path: Path) -> None:
    content = tables()
    del content["orders"], content["order_products__prior"]
    counts = ingest(write_csvs(tmp_path / "in", content), tmp_path / "out")
    assert counts.order_lines.kept == 2
    assert "no orders" in counts.notes[0]
    assert "user_id" not in read(tmp_path / "out", "order_lines")


@pytest.mark.parametrize("aisles", [True, False])
def test_products_without_order_lines_count_as_purchased_once(tmp_path: Path, aisles: bool) -> None:
    content = {name: tables()[name] for name in ("products", "departments")}
    if aisles:
        content["aisles"] = tables()["aisles"]
    counts = ingest(write_csvs(tmp_path / "in", content), tmp_path / "out")
    products = read(tmp_path / "out", "products")
    assert products["purchases"].tolist() == [1, 1, 1, 1]
    assert products["aisle"].notna().all() == aisles
    assert len(read(tmp_path / "out", "order_lines")) == 0
    assert counts.orphans.products_without_aisle == 0
    assert {path.stem for path in (tmp_path / "out").glob("*.parquet")} == FILES


def test_columns_without_a_name_are_ignored(tmp_path: Path) -> None:
    file = tmp_path / "export.csv"
    file.write_text("title,,dept, ,\nMilk,,dairy,,\nKiwi,,produce,,\n")
    columns = ColumnMapping(product_name="title", department="dept")
    ingest(file, tmp_path / "out", DataConfig(columns=columns))
    assert read(tmp_path / "out", "products")["product_name"].tolist() == ["Milk", "Kiwi"]


def test_single_table_is_read_by_column_mapping(tmp_path: Path) -> None:
    rows = [
        ["sku", "title", "dept", "shelf", "sold"],
        [9001, "Bananas, ripe", "Produce ", "fruit", 12],
        [9002, "Whole Milk", "dairy", "milk", ""],
        [9003, "Mystery", "", "", 3],
    ]
    write_csvs(tmp_path / "in", {"export": rows})
    columns = ColumnMapping(
        product_id="sku", product_name="title", department="dept", aisle="shelf", purchases="sold"
    )
    ingest(tmp_path / "in" / "export.csv", tmp_path / "out", DataConfig(columns=columns))
    products = read(tmp_path / "out", "products")
    assert products["department"].tolist() == ["Produce", "dairy", "missing"]
    assert products["purchases"].tolist() == [12, 0, 3]
    assert products["product_id"].tolist() == [9001, 9002, 9003]

    fewer = DataConfig(columns=ColumnMapping(product_name="title", department="dept"))
    counts = ingest(tmp_path / "in", tmp_path / "fewer", fewer)
    products = read(tmp_path / "fewer", "products")
    assert products["product_id"].tolist() == [1, 2, 3]
    assert products["purchases"].tolist() == [1, 1, 1]
    assert counts.aisles == 0


def test_column_mapped_twice_is_rejected(tmp_path: Path) -> None:
    write_csvs(tmp_path / "in", {"export": [["title"], ["Milk"]]})
    columns = ColumnMapping(product_name="title", department="title")
    with pytest.raises(ConfigError, match="both name 'title'"):
        ingest(tmp_path / "in", tmp_path / "out", DataConfig(columns=columns))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(("column", "value"), [("sold", "1.234"), ("sku", "9001.5")])
def test_number_with_a_separator_is_not_rounded(
    tmp_path: Path, suffix: str, column: str, value: str
) -> None:
    table = pd.DataFrame({"title": ["Milk", "Tea"], "dept": "x", column: ["9000.0", value]})
    file = tmp_path / f"export.{suffix}"
    table.to_csv(file, index=False) if suffix == "csv" else table.to_parquet(file)
    mapped = {"sold": "purchases", "sku": "product_id"}[column]
    columns = ColumnMapping(product_name="title", department="dept", **{mapped: column})
    with pytest.raises(TableError, match=rf"row 2: column '{column}' holds {value}, expected"):
        ingest(file, tmp_path / "out", DataConfig(columns=columns))


def test_missing_path_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere: no such file or directory"):
        ingest(tmp_path / "nowhere", tmp_path / "out")


def test_file_that_changes_while_read_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_csvs(tmp_path / "in", tables())
    stage = ingest_run._stage

    def stage_and_append(*arguments: Any) -> set[str]:
        with (folder / "orders.csv").open("a") as file:
            file.write("13,2,prior,1,0,0,\n")
        return stage(*arguments)

    monkeypatch.setattr(ingest_run, "_stage", stage_and_append)
    with pytest.raises(SourceError, match=r"orders.csv changed while it was read"):
        ingest(folder, tmp_path / "out")


def test_insufficient_memory_limit_suggests_a_larger_one(tmp_path: Path) -> None:
    folder = write_csvs(tmp_path / "in", tables())
    with pytest.raises(GrocerError, match=r"data.memory_limit_mb=2"):
        ingest(folder, tmp_path / "out", DataConfig(memory_limit_mb=1))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
def test_full_disk_raises_output_error(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not permitted")
    try:
        content = tables()
        content["products"] += [[n, f"{n**40:x}", 1, 4] for n in range(100, 20_000)]
        folder = write_csvs(tmp_path / "in", content)
        with (
            pytest.raises(OutputError, match="no space is left"),
            step.step("ingest", disk / "out") as out,
        ):
            ingest_run.run(str(folder), CONFIG, out)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from grocer.config.stages import DataConfig
from grocer.ingest.duckdb_session import Database
from grocer.ingest.run import run
from grocer.artifacts.step import step
query, remaining = Database.run, [int(sys.argv[3])]
def run_and_count(self, *arguments):
    remaining[0] -= 1
    if remaining[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return query(self, *arguments)
Database.run = run_and_count
with step("ingest", Path(sys.argv[2])) as out:
    run(sys.argv[1], DataConfig(), out)
"""


@pytest.mark.parametrize("queries", [2, 30, 45])
def test_sigkill_leaves_no_output(tmp_path: Path, queries: int) -> None:
    folder, out = write_csvs(tmp_path / "in", tables()), tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(folder), str(out)]
    killed = subprocess.run([*command, str(queries)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    subprocess.run([*command, "1000"], check=True, capture_output=True)
    assert (out / "artifact.json").exists()
