"""Bulk classification keeps every row in its place, survives a kill, and says what is wrong."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grocer.config.recipes import tiny
from grocer.errors import BundleError, ConfigError, GrocerError, OutputError, TableError
from grocer.inference.batch import classify
from grocer.inference.scores import Scores
from grocer.release.bundle import Bundle
from tests.fixtures.artifacts import LABELS, make_bundle
from tests.fixtures.predictor import StubScorer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def load(bundle: Bundle) -> StubScorer:
    return StubScorer(bundle.labels)


def write_csv(path: Path, names: Sequence[str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "product_name"])
        writer.writerows(enumerate(names))
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def expected(name: str) -> str:
    return LABELS[int(StubScorer(LABELS).predict([name]).probabilities.argmax())]


NAMES = ["Milk", 'Green Tea, 25% \\"', "Milk", "", "  ", "Crème", "805", "Bread\nwith seeds"]


def test_every_row_stays_in_its_place_as_it_was(tmp_path: Path, bundle: Bundle) -> None:
    source = write_csv(tmp_path / "in.csv", NAMES)
    counts = classify(source, tmp_path / "out.csv", bundle.path, chunk_rows=3, load=load)
    rows = read_csv(tmp_path / "out.csv")
    assert [row["product_name"] for row in rows] == NAMES
    assert [row["id"] for row in rows] == [str(i) for i in range(len(NAMES))]
    for row in rows:
        name = row["product_name"]
        assert row["predicted_department"] == (expected(name) if name.strip() else "")
    assert counts == {"rows": 8, "named": 6, "unsure": 0, "blank": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_parquet_keeps_its_types_and_nulls(tmp_path: Path, bundle: Bundle) -> None:
    table = pa.table({"product_name": ["Milk", None, "Bread"], "price": [1.5, 2.5, None]})
    pq.write_table(table, tmp_path / "in.parquet")
    classify(tmp_path / "in.parquet", tmp_path / "o.parquet", bundle.path, chunk_rows=2, load=load)
    found = pq.read_table(tmp_path / "o.parquet")
    assert found.select(table.schema.names).equals(table)
    assert found["predicted_department"].to_pylist() == [expected("Milk"), None, expected("Bread")]
    assert found["predicted_probability"].to_pylist()[1] is None


def test_the_formats_may_differ(tmp_path: Path, bundle: Bundle) -> None:
    source = write_csv(tmp_path / "in.csv", NAMES)
    classify(source, tmp_path / "a.parquet", bundle.path, load=load)
    classify(tmp_path / "in.csv", tmp_path / "b.csv", bundle.path, load=load)
    found = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["predicted_department"] or "" for row in found] == [
        row["predicted_department"] for row in read_csv(tmp_path / "b.csv")
    ]


def test_below_min_probability_the_department_is_left_open(tmp_path: Path, bundle: Bundle) -> None:
    source = write_csv(tmp_path / "in.csv", ["Milk"])
    out = tmp_path / "out.csv"
    assert classify(source, out, bundle.path, min_probability=1.0, load=load)["unsure"] == 1
    (row,) = read_csv(out)
    assert row["predicted_department"] == ""
    assert float(row["predicted_probability"]) > 0


@pytest.fixture(scope="module")
def levelled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose labels have aisles, but for bakery."""
    config = tiny().with_settings(["catalogue.levels=2"])
    return make_bundle(tmp_path_factory.mktemp("levelled"), config)


def load_levelled(bundle: Bundle) -> StubScorer:
    return StubScorer(bundle.labels, leaves=bundle.leaves)


def test_a_bundle_of_two_levels_adds_the_aisle(tmp_path: Path, levelled: Bundle) -> None:
    names = [f"name {i}" for i in range(20)]
    source = write_csv(tmp_path / "in.csv", [*names, ""])
    classify(source, tmp_path / "out.csv", levelled.path, load=load_levelled)
    rows = read_csv(tmp_path / "out.csv")
    found = load_levelled(levelled).predict(names)
    predicted = zip(rows[:-1], found.predicted_labels, found.leaf_probabilities, strict=True)
    for row, department, shares in predicted:
        best = int(shares.argmax())
        aisle = "" if department == "bakery" else levelled.leaves[best][1]
        assert (row["predicted_department"], row["predicted_aisle"]) == (department, aisle)
        share = float(row["predicted_aisle_probability"])
        assert share == pytest.approx(shares.max(), abs=1e-6)
        assert share <= float(row["predicted_probability"])
    assert {row["predicted_department"] for row in rows[:-1]} == set(LABELS)
    assert rows[-1]["predicted_aisle"] == rows[-1]["predicted_aisle_probability"] == ""


def test_an_aisle_may_be_left_open_where_the_department_is_sure(
    tmp_path: Path, levelled: Bundle
) -> None:
    names = [f"name {i}" for i in range(20)]
    source = write_csv(tmp_path / "in.csv", names)
    out = tmp_path / "out.csv"
    counts = classify(source, out, levelled.path, min_probability=0.6, load=load_levelled)
    rows = read_csv(out)
    assert counts["named"] == sum(row["predicted_department"] != "" for row in rows) > 0
    assert any(row["predicted_department"] and not row["predicted_aisle"] for row in rows)
    assert not any(row["predicted_aisle"] and not row["predicted_department"] for row in rows)


def test_a_column_that_an_aisle_would_take_is_told(tmp_path: Path, levelled: Bundle) -> None:
    source = tmp_path / "in.csv"
    source.write_text("product_name,predicted_aisle\nMilk,dairy\n")
    with pytest.raises(TableError, match="'predicted_aisle' already exists; rename it"):
        classify(source, tmp_path / "out.csv", levelled.path, load=load_levelled)


def test_a_name_is_scored_once_a_chunk(tmp_path: Path, bundle: Bundle) -> None:
    scorer = StubScorer(LABELS)
    source = write_csv(tmp_path / "in.csv", ["Milk", "Bread"] * 50)
    classify(source, tmp_path / "out.csv", bundle.path, load=lambda _: scorer)
    assert scorer.passes == [["Milk", "Bread"]]


class Killed(BaseException):
    """Stands for SIGKILL: nothing may tidy up."""


def test_a_killed_run_is_taken_up_and_ends_with_the_same_bytes(
    tmp_path: Path, bundle: Bundle
) -> None:
    source = write_csv(tmp_path / "in.csv", [f"name {i}" for i in range(25)])
    classify(source, tmp_path / "whole.csv", bundle.path, chunk_rows=4, load=load)

    class Dies(StubScorer):
        def predict(self, names: Sequence[str]) -> Scores:
            if len(self.passes) == 3:
                raise Killed
            return super().predict(names)

    out, second = tmp_path / "out.csv", StubScorer(LABELS)
    with pytest.raises(Killed):
        classify(source, out, bundle.path, chunk_rows=4, load=lambda _: Dies(LABELS))
    assert not out.exists()
    # What a kill in the midst of a write leaves behind.
    (tmp_path / ".out.csv.classify" / ".00000003.chunk.x.part").write_text("half")
    classify(source, out, bundle.path, chunk_rows=4, load=lambda _: second)
    assert len(second.passes) == 4
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_another_source_begins_anew(tmp_path: Path, bundle: Bundle) -> None:
    class Dies(StubScorer):
        def predict(self, names: Sequence[str]) -> Scores:
            if self.passes:
                raise Killed
            return super().predict(names)

    out, first = tmp_path / "out.csv", write_csv(tmp_path / "in.csv", ["a", "b"])
    with pytest.raises(Killed):
        classify(first, out, bundle.path, chunk_rows=1, load=lambda _: Dies(LABELS))
    classify(write_csv(tmp_path / "in.csv", ["c", "d"]), out, bundle.path, chunk_rows=1, load=load)
    assert [row["predicted_department"] for row in read_csv(out)] == [expected("c"), expected("d")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty; expected a header"),
        (b"id,name\n1,Milk\n", "no column 'product_name'; found id, name"),
        (b"product_name,product_name\na,b\n", "duplicate column"),
        (b"id,product_name\n1,Milk\n2\n", "line 3: expected 2 fields, found 1"),
        (b"id,product_name\n1,\xff\n", "not UTF-8"),
        (b'id,product_name\n1,"Milk\n', "line 2: unexpected end of data"),
        (
            b"product_name,predicted_department\na,b\n",
            "column 'predicted_department' already exists",
        ),
    ],
)
def test_a_bad_source_is_one_line_and_leaves_nothing(
    tmp_path: Path, bundle: Bundle, content: bytes, told: str
) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(TableError, match=told):
        classify(tmp_path / "in.csv", tmp_path / "out.csv", bundle.path, load=load)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_what_cannot_be_done_is_said_before_work_begins(tmp_path: Path, bundle: Bundle) -> None:
    source, out = write_csv(tmp_path / "in.csv", ["Milk"]), tmp_path / "out.csv"
    with pytest.raises(ConfigError, match=r"ends in \.csv or \.parquet"):
        classify(source, tmp_path / "out.txt", bundle.path, load=load)
    with pytest.raises(GrocerError, match="no such file"):
        classify(tmp_path / "absent.csv", out, bundle.path, load=load)
    with pytest.raises(BundleError):
        classify(source, out, tmp_path, load=load)
    (tmp_path / "fake.parquet").write_text("no")
    with pytest.raises(GrocerError, match="cannot read as Parquet"):
        classify(tmp_path / "fake.parquet", out, bundle.path, load=load)
    out.write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        classify(source, out, bundle.path, load=load)


def test_two_runs_do_not_write_the_same_output(tmp_path: Path, bundle: Bundle) -> None:
    source, out = write_csv(tmp_path / "in.csv", ["Milk"]), tmp_path / "out.csv"

    def load_meanwhile(bundle: Bundle) -> StubScorer:
        with pytest.raises(OutputError, match="is being written by another run"):
            classify(source, out, bundle.path, load=load)
        return load(bundle)

    classify(source, out, bundle.path, load=load_meanwhile)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_any_text_comes_back_in_its_place(tmp_path: Path, bundle: Bundle, names: list[str]) -> None:
    (tmp_path / "out.csv").unlink(missing_ok=True)
    source = write_csv(tmp_path / "in.csv", names)
    classify(source, tmp_path / "out.csv", bundle.path, chunk_rows=2, load=load)
    assert [row["product_name"] for row in read_csv(tmp_path / "out.csv")] == names
