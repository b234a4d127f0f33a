"""CSV and Parquet files are read without changing names; invalid files raise one-line errors."""

import csv
import io
from pathlib import Path

import pandas as pd
import pytest

from grocer.artifacts import step
from grocer.errors import SourceError, TableError
from grocer.ingest.run import run
from tests.fixtures.ingest import CONFIG, ingest, read
from tests.fixtures.tables import Table, tables, write_csvs

ODD_NAMES = [
    r"Easy Grab 9\"x13\" Oblong Glass Bakeware",
    r"\"Constant Comment\" Decaffeinated Black Tea Blend",
    r"6\"",
    "Salt, Pepper & Co.",
    "1664",
    "NA",
    "null",
    "  Double  Spaced ",
    "Cr\u00e8me\u00a0Br\u00fbl\u00e9e \ufffd \u0421\u0430\u043b\u043e",
    "Vitamin &amp C &#39",
    "#1 'Best' =SUM(A1)",
    "two\nlines",
]


@pytest.mark.parametrize(
    ("bom", "line_ending"), [("", "\n"), ("\ufeff", "\n"), ("", "\r\n"), ("\ufeff", "\r\n")]
)
def test_names_are_read_unchanged(tmp_path: Path, bom: str, line_ending: str) -> None:
    content = tables()
    names: Table = [[n, name, 1, 4] for n, name in enumerate(ODD_NAMES, 100)]
    content["products"] += names
    folder = write_csvs(tmp_path / "in", content)
    file = io.StringIO()
    csv.writer(file, lineterminator=line_ending).writerows(content["products"])
    (folder / "products.csv").write_bytes((bom + file.getvalue()).encode())
    ingest(folder, tmp_path / "out")
    assert read(tmp_path / "out", "products")["product_name"].tolist()[4:] == ODD_NAMES


def test_parquet_names_of_type_binary_are_read_as_text(tmp_path: Path) -> None:
    header, *rows = tables()["products"]
    folder = write_csvs(tmp_path / "in", tables())
    (folder / "products.csv").unlink()
    table = pd.DataFrame([*rows, [9, "Crème", 1, 4]], columns=header)
    table["product_name"] = table["product_name"].str.encode("utf-8")
    table.to_parquet(folder / "products.parquet")
    ingest(folder, tmp_path / "out")
    assert read(tmp_path / "out", "products")["product_name"].tolist()[-1] == "Crème"


def _replace(name: str, old: bytes, new: bytes) -> object:
    def change(folder: Path) -> None:
        path = folder / f"{name}.csv"
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new, 1))

    return change


def _remove(*names: str) -> object:
    return lambda folder: [(folder / f"{name}.csv").unlink() for name in names]


SOURCE_FAULTS = {
    "no tables": (_remove(*tables()), "none of products, departments"),
    "no products": (_remove("products"), r"products.csv .* is missing"),
    "no departments": (_remove("departments"), r"departments.csv .* is missing"),
    "products alone": (
        _remove(*(name for name in tables() if name != "products")),
        r"departments.csv .* is missing.*own, name its columns with --set data.columns",
    ),
    "no aisles": (_remove("aisles"), r"aisles.csv .* is missing"),
    "no prior lines": (
        _remove("order_products__prior"),
        r"order_products__prior.csv .* is missing",
    ),
    "not Parquet": (
        lambda folder: (folder / "aisles.csv").rename(folder / "aisles.parquet"),
        "aisles.parquet: not a complete Parquet file",
    ),
    "two files of a table": (
        lambda folder: (folder / "aisles.parquet").write_bytes(b""),
        "two files for aisles",
    ),
}
TABLE_FAULTS = {
    "renamed column": (
        _replace("products", b"product_name", b"product_nam"),
        "products.csv: column 'product_name' is missing; did you mean 'product_nam'",
    ),
    "missing column": (
        _replace("departments", b"department_id,department", b"department_id,d"),
        "departments.csv: column 'department' is missing.* data.columns",
    ),
    "semicolons": (
        _replace("departments", b"department_id,department", b"department_id;department"),
        "departments.csv: column 'department_id' is missing.*';'; save",
    ),
    "duplicate column": (_replace("aisles", b"aisle_id,aisle", b"aisle,aisle"), "duplicate column"),
    "column in two cases": (
        _replace(
            "departments", b"department_id,department", b"Department,department_id,department"
        ),
        "departments.csv: columns 'Department' and 'department' differ at most in case",
    ),
    "empty file": (lambda folder: (folder / "orders.csv").write_bytes(b""), "orders.csv is empty"),
    "header without rows": (
        lambda folder: (folder / "aisles.csv").write_bytes(b"aisle_id,aisle\n"),
        "aisles is empty",
    ),
    "too many fields": (
        _replace("products", b"Whole Milk,2,16", b"Whole Milk,2,16,0"),
        "products.csv, line 3: expected 4 columns, found 5",
    ),
    "too few fields": (
        _replace("orders", b"23,7.0", b"23"),
        "orders.csv, line 3: expected 7 columns, found 6",
    ),
    "text in a number column": (
        _replace("order_products__train", b"12,1,1,1", b"12,one,1,1"),
        "train.csv, line 2: column 'product_id' holds 'one', expected a whole number",
    ),
    "number out of range": (
        _replace("orders", b"prior,2,0", b"prior,2,70000"),
        "line 3: column 'order_dow' holds '70000', expected a whole number from -32,768 to 32,767",
    ),
    "unclosed quote": (
        _replace("products", b"Whole Milk", b'"Whole Milk'),
        "products.csv, line 3: a quoted field is not closed",
    ),
    "very long line": (
        _replace("products", b"Whole Milk", b"Whole Milk" * 250_000),
        "products.csv.*: a line is longer than 2 MB",
    ),
    "Latin-1": (
        _replace("products", b"Whole Milk", b"Cr\xe8me"),
        "products.csv: byte 0xe8 at byte offset 73 is not UTF-8",
    ),
    "Latin-1 in a number column": (
        _replace("order_products__prior", b"11,3,3", b"11,\xb3,3"),
        "order_products__prior.csv: byte 0xb3 at byte offset 87 is not UTF-8",
    ),
    "UTF-16": (
        lambda folder: (folder / "aisles.csv").write_text("aisle_id,aisle\n", encoding="utf-16"),
        "aisles.csv: byte 0xff at byte offset 0",
    ),
    "binary file": (
        lambda folder: (folder / "products.csv").write_bytes(b"PK\3\4\0\0\x08\0garbage"),
        "products.csv: byte 0x00 at byte offset 4",
    ),
    "truncated UTF-8 character": (
        lambda folder: (folder / "aisles.csv").write_bytes(b"aisle_id,aisle\n1,caf\xc3"),
        "aisles.csv: byte 0xc3 at byte offset 20",
    ),
    "mixed line endings": (
        _replace("products", b"4\n2,Whole Milk", b"4\r\n2,Whole Milk"),
        "products.csv.*: mixed line endings",
    ),
}


@pytest.mark.parametrize("fault", SOURCE_FAULTS | TABLE_FAULTS)
def test_invalid_source_raises_one_line_and_leaves_no_output(tmp_path: Path, fault: str) -> None:
    error = SourceError if fault in SOURCE_FAULTS else TableError
    change, message = (SOURCE_FAULTS | TABLE_FAULTS)[fault]
    folder = write_csvs(tmp_path / "in", tables())
    change(folder)
    with pytest.raises(error, match=message) as caught, step.step("ingest", tmp_path / "o") as out:
        run(str(folder), CONFIG, out)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
