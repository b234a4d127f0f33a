"""Protects what ingest promises: what goes in comes out, all that does not fit is counted, and
a source that can't be read ends with one clear line and no file under a final name."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grocer import step
from grocer.errors import ConfigError, GrocerError, OutputError, SourceError, TableError
from grocer.files import tree_digests
from grocer.ingest import ingest
from grocer.settings import ColumnMapping, DataConfig
from tests.csvs import LINES_HEADER, Table, tables, write_csvs

CONFIG = DataConfig(threads=1)
FILES = {"order_lines", "products", "aisles", "departments"}


def run(source: Path, out: Path, config: DataConfig = CONFIG) -> dict:
    out.mkdir()
    return ingest(str(source), config, out)


def read(out: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(out / f"{name}.parquet")


def test_the_six_files_are_joined_and_lines_with_a_null_left_out(tmp_path: Path) -> None:
    counts = run(write_csvs(tmp_path / "in", tables()), tmp_path / "out")

    expected = {"read": 7, "orphans": 0, "joined": 7, "with_nulls": 2, "kept": 5}
    assert counts["order_lines"] == expected
    assert counts["nulls"]["days_since_prior_order"] == 2
    assert (counts["products"], counts["departments"], counts["aisles"]) == (4, 3, 3)
    assert counts["notes"] == []
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


def test_lines_with_a_null_can_be_kept(tmp_path: Path) -> None:
    config = DataConfig(drop_rows_with_null=False)
    counts = run(write_csvs(tmp_path / "in", tables()), tmp_path / "out", config)
    assert (counts["order_lines"]["with_nulls"], counts["order_lines"]["kept"]) == (2, 7)
    assert read(tmp_path / "out", "products")["purchases"].tolist() == [3, 3, 1, 0]


def test_order_lines_without_orders_are_accepted_and_said_so(tmp_path: Path) -> None:
    content = tables()
    del content["orders"], content["order_products__prior"]
    counts = run(write_csvs(tmp_path / "in", content), tmp_path / "out")
    assert counts["order_lines"]["kept"] == 2
    assert "no orders" in counts["notes"][0]
    assert "user_id" not in read(tmp_path / "out", "order_lines")


@pytest.mark.parametrize("aisles", [True, False])
def test_a_catalogue_alone_counts_each_product_once(tmp_path: Path, aisles: bool) -> None:
    content = {name: tables()[name] for name in ("products", "departments")}
    if aisles:
        content["aisles"] = tables()["aisles"]
    counts = run(write_csvs(tmp_path / "in", content), tmp_path / "out")
    products = read(tmp_path / "out", "products")
    assert products["purchases"].tolist() == [1, 1, 1, 1]
    assert products["aisle"].notna().all() == aisles
    assert len(read(tmp_path / "out", "order_lines")) == 0
    assert counts["orphans"]["products_without_aisle"] == 0
    assert {path.stem for path in (tmp_path / "out").glob("*.parquet")} == FILES


def test_a_shops_own_catalogue_by_column_mapping(tmp_path: Path) -> None:
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
    run(tmp_path / "in" / "export.csv", tmp_path / "out", DataConfig(columns=columns))
    products = read(tmp_path / "out", "products")
    assert products["department"].tolist() == ["Produce", "dairy", "missing"]
    assert products["purchases"].tolist() == [12, 0, 3]
    assert products["product_id"].tolist() == [9001, 9002, 9003]

    fewer = DataConfig(columns=ColumnMapping(product_name="title", department="dept"))
    counts = run(tmp_path / "in", tmp_path / "fewer", fewer)
    products = read(tmp_path / "fewer", "products")
    assert products["product_id"].tolist() == [1, 2, 3]
    assert products["purchases"].tolist() == [1, 1, 1]
    assert counts["aisles"] == 0


def test_one_column_cannot_be_two_things(tmp_path: Path) -> None:
    write_csvs(tmp_path / "in", {"export": [["title"], ["Milk"]]})
    columns = ColumnMapping(product_name="title", department="title")
    with pytest.raises(ConfigError, match="both name 'title'"):
        run(tmp_path / "in", tmp_path / "out", DataConfig(columns=columns))


def test_keys_beyond_the_lines_own_join_nothing(tmp_path: Path) -> None:
    content = tables()
    content["orders"].append([2**40 + 11, 1, "test", 4, 1, "09", "3.0"])
    content["products"].append([2**33 + 1, "Far Pear", 1, 4])
    counts = run(write_csvs(tmp_path / "in", content), tmp_path / "out")

    assert counts["order_lines"]["joined"] == counts["order_lines"]["read"] == 7
    assert read(tmp_path / "out", "order_lines")["order_id"].dtype == "int8"
    products = read(tmp_path / "out", "products").set_index("product_name")["purchases"]
    assert products["Far Pear"] == 0


def test_numbers_take_the_narrowest_type_that_holds_them(tmp_path: Path) -> None:
    content = tables()
    content["orders"][2][6] = "7.5"
    content["orders"][3][3] = 300
    content["order_products__prior"] += [[11, 2**40, 4, 1]]
    content["products"] += [[2**40, "By its GTIN", 1, 4]]
    run(write_csvs(tmp_path / "in", content), tmp_path / "out")
    lines = read(tmp_path / "out", "order_lines")
    found = {name: str(kind) for name, kind in lines.dtypes.items() if kind != "object"}
    assert found == {
        "order_id": "int8",
        "product_id": "int64",
        "add_to_cart_order": "int8",
        "reordered": "int8",
        "user_id": "int8",
        "order_number": "int16",
        "order_dow": "int8",
        "order_hour_of_day": "int8",
        "days_since_prior_order": "float32",
    }
    assert lines["days_since_prior_order"].tolist() == [7.5, 7.5, 7.5, 7.5, 30, 30]
    assert lines["product_id"].max() == 2**40


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
    ("mark", "ending"), [("", "\n"), ("\ufeff", "\n"), ("", "\r\n"), ("\ufeff", "\r\n")]
)
def test_names_come_through_intact(tmp_path: Path, mark: str, ending: str) -> None:
    content = tables()
    names: Table = [[n, name, 1, 4] for n, name in enumerate(ODD_NAMES, 100)]
    content["products"] += names
    folder = write_csvs(tmp_path / "in", content)
    file = io.StringIO()
    csv.writer(file, lineterminator=ending).writerows(content["products"])
    (folder / "products.csv").write_bytes((mark + file.getvalue()).encode())
    run(folder, tmp_path / "out")
    assert read(tmp_path / "out", "products")["product_name"].tolist()[4:] == ODD_NAMES


def test_what_does_not_fit_is_counted_once_and_shown(tmp_path: Path) -> None:
    content = tables()
    content["order_products__prior"] += [
        [10, 999, 4, 0],  # no such product
        [888, 1, 1, 0],  # no such order
        [888, 999, 2, 0],  # neither
        [11, 1, 9, 0],  # stands twice
    ]
    content["products"] += [[5, "Lost", 77, 99], [1, "Bananas again", 1, 4]]
    content["orders"].append(content["orders"][2])
    counts = run(write_csvs(tmp_path / "in", content), tmp_path / "out")
    expected = {"read": 11, "orphans": 3, "joined": 8, "with_nulls": 2, "kept": 6}
    assert counts["order_lines"] == expected
    assert counts["orphans"] == {
        "products_without_department": 1,
        "products_without_aisle": 1,
        "order_lines_without_product": 2,
        "order_lines_without_order": 2,
    }
    assert counts["duplicates"] == {
        "products": 1,
        "departments": 0,
        "aisles": 0,
        "orders": 1,
        "order_lines": 1,
    }
    rejected = read(tmp_path / "out", "rejected")["reason"].value_counts().to_dict()
    assert rejected == {
        "no such product": 2,
        "no such order": 1,
        "a null": 2,
        "twice in its order": 2,
        "order twice in orders": 2,
    }
    names = read(tmp_path / "out", "products")["product_name"]
    assert "Lost" in names.tolist()  # validation says so; it does not vanish in the join


def test_the_same_source_gives_the_same_rows_and_counts(tmp_path: Path) -> None:
    content = tables()
    more = range(1_000, 60_000)
    content["orders"] += [[n, n, "prior", 2, 0, 0, n % 30 or ""] for n in more]
    content["order_products__prior"] += [[n, p, p, 0] for n in more for p in (1, 2, 3, 9)]
    folder = write_csvs(tmp_path / "in", content)
    digests, lines = [], []
    for name in ("one", "two"):
        run(folder, tmp_path / name, DataConfig(threads=2))
        digests.append(tree_digests(tmp_path / name))
        del digests[-1]["order_lines.parquet"]  # several threads write: another order of rows
        key = ["order_id", "product_id"]
        lines.append(read(tmp_path / name, "order_lines").sort_values(key, ignore_index=True))
    assert digests[0] == digests[1]
    pd.testing.assert_frame_equal(*lines)


NAME = st.text(
    st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), min_size=1, max_size=12
)
SMALL = st.integers(1, 6)


@settings(max_examples=15, deadline=None)
@given(
    names=st.lists(NAME, min_size=1, max_size=6),
    orders=st.dictionaries(SMALL, st.none() | st.integers(0, 30), min_size=1, max_size=6),
    lines=st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=20),
)
def test_what_goes_in_comes_out_and_counts_add_up(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    orders: dict[int, int | None],
    lines: list[tuple[int, int]],
) -> None:
    content = tables()
    header = content["products"][0]
    content["products"] = [header, *([n, name, 1, 4] for n, name in enumerate(names, 1))]
    content["orders"] = [
        content["orders"][0],
        *([n, 1, "prior", 1, 0, 0, "" if days is None else days] for n, days in orders.items()),
    ]
    content["order_products__prior"] = [LINES_HEADER, *([o, p, 1, 0] for o, p in lines)]
    content["order_products__train"] = [LINES_HEADER, [1, 1, 1, 0]]
    folder = tmp_path_factory.mktemp("property")
    counts = run(write_csvs(folder / "in", content), folder / "out")

    every = [*lines, (1, 1)]
    fits = [(o, p) for o, p in every if o in orders and p <= len(names)]
    whole = [(o, p) for o, p in fits if orders[o] is not None]
    found = counts["order_lines"]
    assert found["read"] == found["joined"] + found["orphans"] == len(every)
    assert (found["joined"], found["kept"]) == (len(fits), len(whole))
    assert found["with_nulls"] == len(fits) - len(whole)
    assert counts["duplicates"]["order_lines"] == len(every) - len(set(every))
    products = read(folder / "out", "products")
    assert products["product_name"].tolist() == names
    assert products["purchases"].sum() == len(whole)
    joined = read(folder / "out", "order_lines")
    assert sorted(zip(joined["order_id"], joined["product_id"], strict=True)) == sorted(whole)


def _replace(name: str, old: bytes, new: bytes) -> object:
    def change(folder: Path) -> None:
        path = folder / f"{name}.csv"
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new, 1))

    return change


def _remove(*names: str) -> object:
    return lambda folder: [(folder / f"{name}.csv").unlink() for name in names]


FAULTS = {
    "nothing at all": (_remove(*tables()), SourceError, "none of products, departments"),
    "no products": (_remove("products"), SourceError, r"products.csv .* is missing"),
    "no departments": (_remove("departments"), SourceError, r"departments.csv .* is missing"),
    "no aisles": (_remove("aisles"), SourceError, r"aisles.csv .* is missing"),
    "no prior lines": (
        _remove("order_products__prior"),
        SourceError,
        r"order_products__prior.csv .* is missing",
    ),
    "a column renamed": (
        _replace("products", b"product_name", b"product_nam"),
        TableError,
        "products.csv: column 'product_name' is missing; did you rename 'product_nam'",
    ),
    "a column missing": (
        _replace("departments", b"department_id,department", b"department_id,d"),
        TableError,
        "departments.csv: column 'department' is missing",
    ),
    "a column twice": (
        _replace("aisles", b"aisle_id,aisle", b"aisle,aisle"),
        TableError,
        "appears twice",
    ),
    "an empty file": (
        lambda folder: (folder / "orders.csv").write_bytes(b""),
        TableError,
        "orders.csv is empty",
    ),
    "a header alone": (
        lambda folder: (folder / "aisles.csv").write_bytes(b"aisle_id,aisle\n"),
        TableError,
        "aisles is empty",
    ),
    "a field too many": (
        _replace("products", b"Whole Milk,2,16", b"Whole Milk,2,16,0"),
        TableError,
        "products.csv, line 3: the header has 4 columns, this line 5",
    ),
    "a field too few": (
        _replace("orders", b"23,7.0", b"23"),
        TableError,
        "orders.csv, line 3: the header has 7 columns, this line 6",
    ),
    "a word for a number": (
        _replace("order_products__train", b"12,1,1,1", b"12,one,1,1"),
        TableError,
        "order_products__train.csv, line 2: column 'product_id' holds 'one', not a whole number",
    ),
    "a number too large": (
        _replace("orders", b"prior,2,0", b"prior,2,70000"),
        TableError,
        "line 3: column 'order_dow' holds '70000', not a whole number from -32,768 to 32,767",
    ),
    "an open quote": (
        _replace("products", b"Whole Milk", b'"Whole Milk'),
        TableError,
        "products.csv, line 3: a quoted field has no end",
    ),
    "a line without end": (
        _replace("products", b"Whole Milk", b"Whole Milk" * 250_000),
        TableError,
        "products.csv.*: a line is longer than 2 MB; is a quote left open",
    ),
    "Latin-1": (
        _replace("products", b"Whole Milk", b"Cr\xe8me"),
        TableError,
        "products.csv: byte 0xe8 at byte offset 73 is not UTF-8",
    ),
    "a byte of Latin-1 among numbers": (
        _replace("order_products__prior", b"11,3,3", b"11,\xb3,3"),
        TableError,
        "order_products__prior.csv: byte 0xb3 at byte offset 87 is not UTF-8",
    ),
    "UTF-16": (
        lambda folder: (folder / "aisles.csv").write_text("aisle_id,aisle\n", encoding="utf-16"),
        TableError,
        "aisles.csv: byte 0xff at byte offset 0",
    ),
    "a binary file": (
        lambda folder: (folder / "products.csv").write_bytes(b"PK\3\4\0\0\x08\0garbage"),
        TableError,
        "products.csv: byte 0x00 at byte offset 4",
    ),
    "a text cut in a character": (
        lambda folder: (folder / "aisles.csv").write_bytes(b"aisle_id,aisle\n1,caf\xc3"),
        TableError,
        "aisles.csv: byte 0xc3 at byte offset 20",
    ),
    "mixed line endings": (
        _replace("products", b"4\n2,Whole Milk", b"4\r\n2,Whole Milk"),
        TableError,
        "products.csv: not one kind of line ending",
    ),
    "not Parquet": (
        lambda folder: (folder / "aisles.csv").rename(folder / "aisles.parquet"),
        SourceError,
        "aisles.parquet is not a whole Parquet file",
    ),
    "a table twice": (
        lambda folder: (folder / "aisles.parquet").write_bytes(b""),
        SourceError,
        "aisles is there twice",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_clear_line_and_leaves_nothing(tmp_path: Path, fault: str) -> None:
    change, error, message = FAULTS[fault]
    folder = write_csvs(tmp_path / "in", tables())
    change(folder)  # type: ignore[operator]
    with pytest.raises(error, match=message) as caught, step.step("ingest", tmp_path / "o") as out:
        ingest(str(folder), CONFIG, out)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such file or folder"):
        run(tmp_path / "nowhere", tmp_path / "out")


def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_csvs(tmp_path / "in", tables())
    from grocer import ingest as module

    stage = module._stage

    def touched(*arguments: object) -> None:
        stage(*arguments)  # type: ignore[arg-type]
        with (folder / "orders.csv").open("a") as file:
            file.write("13,2,prior,1,0,0,\n")

    monkeypatch.setattr(module, "_stage", touched)
    with pytest.raises(SourceError, match=r"orders.csv changed while it was read"):
        run(folder, tmp_path / "out")


def test_memory_that_does_not_suffice_is_said(tmp_path: Path) -> None:
    folder = write_csvs(tmp_path / "in", tables())
    with pytest.raises(GrocerError, match=r"data.memory_limit_mb=2"):
        run(folder, tmp_path / "out", DataConfig(memory_limit_mb=1, threads=1))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        content = tables()
        content["products"] += [[n, f"{n**40:x}", 1, 4] for n in range(100, 20_000)]
        folder = write_csvs(tmp_path / "in", content)
        with (
            pytest.raises(OutputError, match="no space is left"),
            step.step("ingest", disk / "out") as out,
        ):
            ingest(str(folder), CONFIG, out)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from grocer.settings import DataConfig
from grocer.database import Database
from grocer.ingest import ingest
from grocer.step import step
run, left = Database.run, [int(sys.argv[3])]
def counted(self, *arguments):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(self, *arguments)
Database.run = counted
with step("ingest", Path(sys.argv[2])) as out:
    ingest(sys.argv[1], DataConfig(), out)
"""


@pytest.mark.parametrize("queries", [2, 30, 45])
def test_kill_9_leaves_nothing_under_the_final_name(tmp_path: Path, queries: int) -> None:
    folder, out = write_csvs(tmp_path / "in", tables()), tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(folder), str(out)]
    killed = subprocess.run([*command, str(queries)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    subprocess.run([*command, "1000"], check=True, capture_output=True)
    assert (out / "artifact.json").exists()
