"""Corrections change labels by normal form of the name, and never a conflict or a side."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from grocer.artifacts.counts import Counts
from grocer.artifacts.step import record_of, step
from grocer.config.recipes import recipe
from grocer.dataset.run import run as build_dataset
from grocer.errors import SourceError, TableError
from grocer.ingest.corrections import (
    RESOLUTION,
    UNCORRECTED,
    Correction,
    Corrections,
    open_table,
    read_table,
)
from grocer.ingest.run import run as ingest
from grocer.validation.run import run as validate
from tests.fixtures.corrections import correction, write_corrections
from tests.fixtures.ingest import CONFIG, read
from tests.fixtures.tables import tables, write_csvs


def corrected(tmp_path: Path, *rows: Correction, label: str = "department") -> Counts:
    """Ingest the small tables with corrections; they are in `tmp_path / "out"`."""
    address = write_corrections(str(tmp_path / "corrections"), *rows)
    (tmp_path / "out").mkdir()
    config = CONFIG.model_copy(update={"corrections": address})
    source = write_csvs(tmp_path / "in", tables())
    return ingest(str(source), config, tmp_path / "out", label)


def test_last_label_of_a_reviewer_applies() -> None:
    later = correction("Milk", "snacks", when="2026-11-02")
    result = Corrections.of([later, correction("MILK!", "pantry")])
    assert [row.label for row in result.effective.values()] == ["snacks"]
    assert not result.conflicts


def test_disagreement_is_a_conflict_until_it_is_resolved() -> None:
    rows = [correction("Milk", "snacks"), correction("milk", "pantry", "bob", "2026-11-02")]
    assert not Corrections.of(rows).effective
    assert [len(each) for each in Corrections.of(rows).conflicts.values()] == [2]
    rows.append(correction("Milk", "pantry", who="eve", when="2026-11-03", source=RESOLUTION))
    assert Corrections.of(rows).effective["milk"].who == "eve"
    rows.append(correction("Milk", "snacks", when="2026-11-04"))
    assert not Corrections.of(rows).effective  # a later opinion is a new conflict


def test_labels_change_by_normal_form_of_the_name(tmp_path: Path) -> None:
    counts = corrected(
        tmp_path,
        correction("organic  BANANAS!", "dairy eggs"),
        correction("Mystery Box", "produce"),
        correction("Whole Milk", "dairy eggs"),
        correction("Sold Out", "produce"),
        correction("Never Bought Plums", "produce"),
        correction("Never Bought Plums", "dairy eggs", who="bob"),
    )
    products = read(tmp_path / "out", "products")
    assert products["department"].tolist() == ["dairy eggs", "dairy eggs", "produce", "produce"]
    assert products["department_id"].tolist() == [16, 16, 4, 4]
    assert products[UNCORRECTED].tolist() == ["produce", "dairy eggs", "missing", "produce"]
    assert products["purchases"].tolist() == [2, 2, 1, 0]
    found = counts.corrections
    assert found is not None
    assert (found.rows, found.names, found.changed_names, found.changed_products) == (6, 4, 2, 2)
    assert (found.confirmed_names, found.unmatched_names) == (1, 1)
    assert found.conflicts == ("Never Bought Plums",)
    assert [(each.source_label, each.label) for each in found.listed] == [
        ("missing", "produce"),
        ("produce", "dairy eggs"),
    ]
    assert Counts.read(tmp_path / "out").corrections == found


def test_aisles_can_be_corrected(tmp_path: Path) -> None:
    corrected(tmp_path, correction("Organic Bananas", "milk"), label="aisle")
    assert read(tmp_path / "out", "products")["aisle_id"].tolist()[0] == 2


def test_label_that_the_data_lacks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="'fruit'"):
        corrected(tmp_path, correction("Organic Bananas", "fruit"))


def test_unreadable_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not found"):
        read_table(open_table(str(tmp_path / "none")))
    (tmp_path / "x.parquet").write_bytes(b"?")
    with pytest.raises(SourceError, match=r"x\.parquet"):
        read_table(open_table(str(tmp_path)))
    for address in ("https://host/table", str(tmp_path / "x.parquet")):
        with pytest.raises(SourceError, match="expected a directory"):
            open_table(address)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
def test_table_is_read_without_threads(tmp_path: Path) -> None:
    """One of Arrow's threads can abort the process at its exit."""
    program = f"""
import os
from grocer.ingest.corrections import open_table, read_table
def threads(): return len(os.listdir("/proc/self/task"))
table, before = open_table({str(tmp_path)!r}), threads()
print(len(read_table(table)), threads() - before)
"""
    write_corrections(str(tmp_path), correction("Milk", "snacks"))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("1 0\n", "")


def test_table_on_s3_only_grows(s3: Any) -> None:
    s3.create_bucket(Bucket="reviews")
    table = open_table(write_corrections("s3://reviews/corrections", correction("Milk", "snacks")))
    (first,) = table.list()
    write_corrections(table.address, correction("Tea", "drinks"))
    assert first in table.list()
    assert {row.name for row in read_table(table)} == {"Milk", "Tea"}


def test_report_lists_corrections_and_the_check_of_aisles_ignores_them(tmp_path: Path) -> None:
    corrected(tmp_path, correction("<Organic> Bananas", "dairy eggs"))
    settings = ["validation.min_products=2", "validation.max_null_fraction=0.3"]
    (tmp_path / "report").mkdir()
    config = recipe("tiny").with_settings(settings)
    report = validate(Counts.read(tmp_path / "out"), config, tmp_path / "report")
    assert report.success, report.failures
    assert report.corrections is not None
    assert report.corrections.changed_products == 1
    page = (tmp_path / "report" / "validation.html").read_text()
    assert "&lt;Organic&gt; Bananas" in page


def test_corrections_are_part_of_the_digest_of_the_data(tmp_path: Path) -> None:
    """Also if they change no product."""
    digests = set()
    source = str(write_csvs(tmp_path / "in", tables()))
    for i, label in enumerate(("produce", "dairy eggs")):
        address = write_corrections(str(tmp_path / f"c{i}"), correction("Sold Out", label))
        config = CONFIG.model_copy(update={"corrections": address})
        with step("ingest", tmp_path / f"out{i}") as out:
            ingest(source, config, out)
        digests.add(record_of(tmp_path / f"out{i}")["digest"])
    assert len(digests) == 2


def test_corrected_products_stay_on_their_side(tmp_path: Path) -> None:
    names = [f"Thing number {number}" for number in range(300)]
    catalogue = pd.DataFrame({"product_name": names, "department": ["a", "b", "c"] * 100})
    catalogue["aisle"] = catalogue["department"].map({"a": "a1", "b": "b1", "c": "c1"})
    catalogue.to_csv(tmp_path / "catalogue.csv", index=False)
    rows = [correction(name, "b") for name in names[::30]]
    address = write_corrections(str(tmp_path / "corrections"), *rows)
    columns = ["data.columns.department=department", "data.columns.aisle=aisle"]
    config = recipe("tiny").with_settings([*columns, "catalogue.levels=2"])
    sides, aisles = {}, {}
    for kind, settings in {"raw": [], "corrected": [f"data.corrections={address}"]}.items():
        config = config.with_settings(settings)
        for part in ("tables", "splits"):
            (tmp_path / f"{kind}-{part}").mkdir()
        source = str(tmp_path / "catalogue.csv")
        ingest(source, config.data, tmp_path / f"{kind}-tables")
        counts, out = Counts.read(tmp_path / f"{kind}-tables"), tmp_path / f"{kind}-splits"
        build_dataset(counts, config, out)
        tables_ = {side: read(out, side) for side in ("train", "validation", "test")}
        sides[kind] = {side: set(table["product_name"]) for side, table in tables_.items()}
        aisles[kind] = pd.concat(tables_.values()).set_index("product_name")
    assert sides["raw"] == sides["corrected"]
    changed = aisles["corrected"].loc[names[::30]]
    assert set(changed["department"]) == {"b"}
    assert set(changed[UNCORRECTED]) == {"a"}
    assert set(changed["aisle"]) == {""}  # a1 is an aisle of the wrong department
    assert UNCORRECTED not in aisles["raw"]
