"""Ingest of partitions reads only new and changed files, and equals a full ingest."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from grocer.artifacts.counts import Counts
from grocer.config.stages import DataConfig
from grocer.errors import ConfigError, SourceError, TableError
from grocer.ingest.partitions import Partition, PartitionCopies
from grocer.ingest.spark import Spark
from grocer.io.atomic import tree_digests
from grocer.io.storage import file_system
from tests.fixtures.ingest import CONFIG, assert_same_tables, ingest
from tests.fixtures.object_store import object_store
from tests.fixtures.tables import LINES_HEADER, ORDERS_HEADER, tables, write_csvs

Rows = list[list[Any]]
Day = tuple[Rows, Rows]
"""Orders and order lines."""
Changes = list[dict[int, Day | None]]
DAYS: dict[int, Day] = {
    1: ([[10, 1, "prior", 1, 2, "08", ""]], [[10, 1, 1, 0], [10, 2, 2, 0]]),
    2: ([[11, 1, "prior", 2, 0, "23", "7.0"]], [[11, 1, 1, 1], [11, 2, 2, 1], [11, 3, 3, 0]]),
    3: ([[12, 1, "train", 3, 6, "00", "30.0"]], [[12, 1, 1, 1], [12, 2, 2, 1]]),
}


def config(engine: str, copies: Path | str | None) -> DataConfig:
    return CONFIG.model_copy(update={"engine": engine, "partitions": copies and str(copies)})


def write_dimensions(folder: Path) -> Path:
    names = ("aisles", "departments", "products")
    return write_csvs(folder, {name: tables()[name] for name in names})


def write_day(folder: Path, number: int, day: Day) -> None:
    for table, header, rows in zip(
        ("orders", "order_products"), (ORDERS_HEADER, LINES_HEADER), day, strict=True
    ):
        write_csvs(folder / table / f"date=2026-11-{number:02}", {"part-0": [header, *rows]})


def remove_day(folder: Path, number: int) -> None:
    for table in ("orders", "order_products"):
        (folder / table / f"date=2026-11-{number:02}" / "part-0.csv").unlink()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a source with the partitions of `DAYS`."""
    folder = write_dimensions(tmp_path / "in")
    for number, day in DAYS.items():
        write_day(folder, number, day)
    return folder


@pytest.fixture
def read_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the name of each partition is added when it is read."""
    names: list[str] = []
    fetch = Partition.fetch

    def recorded(self: Partition, scratch: Path) -> Path:
        names.append(self.name)
        return fetch(self, scratch)

    monkeypatch.setattr(Partition, "fetch", recorded)
    return names


def assert_equal(one: Path, other: Path) -> None:
    """Compare the tables and counts of two directories."""
    assert_same_tables(one, other)
    counts = [Counts.read(out).model_dump(exclude={"partitions"}) for out in (one, other)]
    assert counts[0] == counts[1]


def day(number: int) -> st.SearchStrategy[Day]:
    """Return rows of a day: with nulls, orphans, duplicates, and lines of orders of other days."""
    value, null_or_value = st.integers(1, 4), st.none() | st.integers(1, 5)
    orders = st.lists(st.tuples(value, st.none() | st.integers(0, 30)), max_size=3)
    lines = st.lists(st.tuples(null_or_value, null_or_value, null_or_value), max_size=5)
    return st.tuples(
        orders.map(lambda rows: [[n, number, "prior", 1, 0, 0, days] for n, days in rows]),
        lines.map(lambda rows: [[*row, 0] for row in rows]),
    )


CHANGES = st.lists(
    st.dictionaries(
        st.integers(1, 4), st.integers(1, 4).flatmap(lambda n: st.none() | day(n)), max_size=3
    ),
    min_size=1,
    max_size=3,
)
"""Days that are written, or removed if None, before each run."""


def check_changes(root: Path, engine: str, changes: Changes, read_names: list[str]) -> None:
    """Ingest after each change, and compare with an ingest of all rows in one file per table."""
    folder, copies = write_dimensions(root / "in"), root / "copies"
    days: dict[int, Day] = {9: ([[9, 1, "prior", 1, 0, 0, ""]], [[9, 1, 1, 0]])}
    write_day(folder, 9, days[9])
    before: dict[int, Day] = {}
    for step, change in enumerate(changes):
        for number, rows in change.items():
            if rows is not None:
                write_day(folder, number, rows)
                days[number] = rows
            elif days.pop(number, None):
                remove_day(folder, number)
        read_names.clear()
        out, full = root / f"out-{step}", root / f"full-{step}"
        counts = ingest(folder, out, config(engine, copies))
        changed = [
            day[i] != before.get(n, ([None], [None]))[i] for n, day in days.items() for i in (0, 1)
        ]
        assert len(read_names) == sum(changed)
        assert len(list(copies.iterdir())) == 2 * len(days)
        assert sum(counts.partitions["order_products"].values()) == counts.order_lines.read
        orders, lines = ([row for n in sorted(days) for row in days[n][i]] for i in (0, 1))
        whole = write_dimensions(root / f"whole-{step}")
        write_csvs(
            whole, {"orders": [ORDERS_HEADER, *orders], "order_products": [LINES_HEADER, *lines]}
        )
        ingest(whole, full)
        assert_equal(out, full)
        before = dict(days)


@settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(changes=CHANGES)
def test_any_changes_equal_a_full_ingest(
    tmp_path_factory: pytest.TempPathFactory, read_names: list[str], changes: Changes
) -> None:
    check_changes(tmp_path_factory.mktemp("changes"), "duckdb", changes, read_names)


@pytest.mark.spark
def test_changes_equal_a_full_ingest_with_spark(tmp_path: Path, read_names: list[str]) -> None:
    duplicate = ([[10, 2, "prior", 5, 5, 5, 5]], [[10, 1, 1, 0], [10, 999, 1, 0], [None, 1, 1, 0]])
    changes: Changes = [
        {2: DAYS[2], 3: DAYS[3]},
        {1: DAYS[1], 4: duplicate},
        {2: None, 3: ([], [])},
    ]
    check_changes(tmp_path, "spark", changes, read_names)


def test_output_is_reproducible_and_independent_of_copies(folder: Path, tmp_path: Path) -> None:
    digests = []
    for number, copies in enumerate((None, tmp_path / "copies", tmp_path / "copies")):
        ingest(folder, tmp_path / f"out-{number}", config("duckdb", copies))
        digests.append(tree_digests(tmp_path / f"out-{number}"))
    assert digests[0] == digests[1] == digests[2]


def test_files_of_a_partition_may_have_different_columns_and_formats(
    folder: Path, tmp_path: Path
) -> None:
    day = folder / "order_products" / "date=2026-11-03"
    frame = pd.DataFrame([[12, 3, 3, 0]], columns=LINES_HEADER)
    frame.assign(date="today").to_parquet(day / "late.parquet")
    (day / "_SUCCESS").touch()
    counts = ingest(folder, tmp_path / "out")
    assert counts.order_lines.kept == 6
    assert counts.partitions["order_products"]["order_products/date=2026-11-03/late.parquet"] == 1


def test_invalid_partition_is_reported_and_not_kept(folder: Path, tmp_path: Path) -> None:
    part = folder / "order_products" / "date=2026-11-02" / "part-0.csv"
    part.write_text("order_id,product_id,add_to_cart_order,reordered\n11,1,one,1\n")
    copies = tmp_path / "copies"
    with pytest.raises(TableError, match=r"date=2026-11-02/part-0\.csv, line 2.*'one'"):
        ingest(folder, tmp_path / "out", config("duckdb", copies))
    assert len(list(copies.iterdir())) == 4  # three days of orders and the first one of lines
    part.write_bytes(b"order_id,product_id,add_to_cart_order,reordered\n11,1,1,\xff\n")
    with pytest.raises(TableError, match="is not UTF-8 text"):
        ingest(folder, tmp_path / "again", config("duckdb", copies))


def test_partition_that_changes_while_it_is_read_is_rejected_and_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Partition.fetch

    def append_and_fetch(self: Partition, scratch: Path) -> Path:
        with (folder / self.name).open("a") as file:
            file.write("\n")
        return fetch(self, scratch)

    monkeypatch.setattr(Partition, "fetch", append_and_fetch)
    with pytest.raises(SourceError, match="changed while it was read"):
        ingest(folder, tmp_path / "out", config("duckdb", tmp_path / "copies"))
    assert list((tmp_path / "copies").iterdir()) == []


def test_incomplete_copies_are_removed_but_no_other_files(folder: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    incomplete = copies / f".{'0' * 64}.abc.part"
    incomplete.mkdir(parents=True)
    (copies / "notes.txt").touch()
    ingest(folder, tmp_path / "out", config("duckdb", copies))
    assert (copies / "notes.txt").exists()
    assert not incomplete.exists()


def test_damaged_copy_is_reported(folder: Path, tmp_path: Path) -> None:
    ingest(folder, tmp_path / "out", config("duckdb", tmp_path / "copies"))
    copy = next((tmp_path / "copies").glob("*/*.parquet"))
    copy.write_bytes(copy.read_bytes()[:-8])
    with pytest.raises(SourceError, match=r"rows\.parquet is damaged"):
        ingest(folder, tmp_path / "again", config("duckdb", tmp_path / "copies"))


@pytest.mark.parametrize("name", ["orders/date=2026-11-04/part.csv.gz", "orders.csv"])
def test_unexpected_file_is_rejected(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    with pytest.raises(SourceError, match="orders"):
        ingest(folder, tmp_path / "out")


def test_address_of_copies_is_checked(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"data\.partitions ftp://"):
        ingest(folder, tmp_path / "out", config("duckdb", "ftp://host/copies"))
    with pytest.raises(ConfigError, match=r"data\.engine=spark"):
        PartitionCopies("s3://bucket/copies", Spark.__new__(Spark), tmp_path)


def test_source_and_copies_in_an_object_store(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_names: list[str]
) -> None:
    with object_store() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        files = file_system("s3")
        files.mkdir("data")
        files.put(f"{folder}/", "s3://data/in/", recursive=True)
        settings = config("duckdb", "s3://data/copies")
        first = ingest("s3://data/in", tmp_path / "first", settings)
        assert len(read_names) == 6
        changed = "order_products/date=2026-11-02/part-0.csv"
        with (folder / changed).open("a") as file:
            file.write("11,4,4,0\n")
        files.put_file(str(folder / changed), f"s3://data/in/{changed}")
        read_names.clear()
        second = ingest("s3://data/in", tmp_path / "second", settings)
        assert read_names == [changed]
        assert second.order_lines.kept == first.order_lines.kept + 1
        assert len(files.ls("s3://data/copies")) == 6
    ingest(folder, tmp_path / "full")
    assert_equal(tmp_path / "second", tmp_path / "full")
