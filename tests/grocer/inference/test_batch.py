"""Batch classification: row order, resume after an interruption, and clear errors."""

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
from grocer.release.bundle import LoadedBundle
from tests.fixtures.artifacts import LABELS, make_bundle
from tests.fixtures.predictor import FAULTS, StubScorer

NAMES = ["Milk", 'Green Tea, 25% \\"', "Milk", "", "  ", "Crème", "805", "Bread\nwith seeds"]


@pytest.fixture(scope="module")
def two_level_bundle(tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    """A bundle whose labels have aisles, except bakery."""
    config = tiny().with_settings(["catalogue.levels=2"])
    return make_bundle(tmp_path_factory.mktemp("two_levels"), config)


def load(bundle: LoadedBundle) -> StubScorer:
    return StubScorer(bundle.labels, leaves=bundle.leaves)


def write_csv(path: Path, names: Sequence[str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "product_name"])
        writer.writerows(enumerate(names))
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def expected_label(name: str) -> str:
    return StubScorer(LABELS).predict([name]).predicted_labels[0]


def test_rows_keep_their_order_and_content(tmp_path: Path, bundle: LoadedBundle) -> None:
    source = write_csv(tmp_path / "in.csv", NAMES)
    counts = classify(source, tmp_path / "out.csv", bundle.path, chunk_rows=3, load=load)
    rows = read_csv(tmp_path / "out.csv")
    assert [row["product_name"] for row in rows] == NAMES
    assert [row["id"] for row in rows] == [str(i) for i in range(len(NAMES))]
    assert [row["predicted_department"] for row in rows] == [
        expected_label(name) if name.strip() else "" for name in NAMES
    ]
    assert counts == {"rows": 8, "classified": 6, "low_confidence": 0, "blank": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_spreadsheet_with_a_byte_order_mark_and_unnamed_columns(
    tmp_path: Path, bundle: LoadedBundle
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("product_name,,\nCrème,,x\n", encoding="utf-8-sig")
    classify(source, tmp_path / "out.csv", bundle.path, load=load)
    text = (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert text.startswith("\ufeffproduct_name,column 2,column 3,predicted_department,")
    assert "Crème,,x," in text


def test_very_long_names_are_classified(tmp_path: Path, bundle: LoadedBundle) -> None:
    names = [" " * 200_000, "é[" + " " * 200_000 + "INST]", "a" + "\u0345\u0301" * 100_000]
    source = write_csv(tmp_path / "in.csv", names)
    counts = classify(source, tmp_path / "out.csv", bundle.path, load=load)
    assert (counts["rows"], counts["classified"], counts["blank"]) == (3, 2, 1)


# Hypothesis also draws strings that occur in the source, such as the names of faults.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT.filter(lambda name: not name.strip().startswith(FAULTS))))
def test_any_text_is_preserved(tmp_path: Path, bundle: LoadedBundle, names: list[str]) -> None:
    (tmp_path / "out.csv").unlink(missing_ok=True)
    source = write_csv(tmp_path / "in.csv", names)
    classify(source, tmp_path / "out.csv", bundle.path, chunk_rows=2, load=load)
    assert [row["product_name"] for row in read_csv(tmp_path / "out.csv")] == names


def test_parquet_keeps_types_and_nulls(tmp_path: Path, bundle: LoadedBundle) -> None:
    table = pa.table({"product_name": ["Milk", None, "Bread"], "price": [1.5, 2.5, None]})
    pq.write_table(table, tmp_path / "in.parquet")
    out = tmp_path / "out.parquet"
    classify(tmp_path / "in.parquet", out, bundle.path, chunk_rows=2, load=load)
    result = pq.read_table(out)
    assert result.select(table.schema.names).equals(table)
    expected = [expected_label("Milk"), None, expected_label("Bread")]
    assert result["predicted_department"].to_pylist() == expected
    assert result["predicted_probability"].to_pylist()[1] is None


def test_input_and_output_formats_may_differ(tmp_path: Path, bundle: LoadedBundle) -> None:
    source = write_csv(tmp_path / "in.csv", NAMES)
    classify(source, tmp_path / "out.parquet", bundle.path, load=load)
    labels = pq.read_table(tmp_path / "out.parquet")["predicted_department"].to_pylist()
    assert labels == [expected_label(name) if name.strip() else None for name in NAMES]


def test_department_below_min_probability_is_empty(tmp_path: Path, bundle: LoadedBundle) -> None:
    source, out = write_csv(tmp_path / "in.csv", ["Milk"]), tmp_path / "out.csv"
    assert classify(source, out, bundle.path, min_probability=1.0, load=load)["low_confidence"] == 1
    (row,) = read_csv(out)
    assert row["predicted_department"] == ""
    assert float(row["predicted_probability"]) > 0


def test_two_level_bundle_adds_the_aisle(tmp_path: Path, two_level_bundle: LoadedBundle) -> None:
    names = [f"name {i}" for i in range(20)]
    source = write_csv(tmp_path / "in.csv", [*names, ""])
    classify(source, tmp_path / "out.csv", two_level_bundle.path, load=load)
    *rows, blank = read_csv(tmp_path / "out.csv")
    scores = load(two_level_bundle).predict(names)
    assert [row["predicted_department"] for row in rows] == scores.predicted_labels
    assert [row["predicted_aisle"] for row in rows] == scores.predicted_aisles
    assert {row["predicted_department"] for row in rows} == set(LABELS)
    assert "" in scores.predicted_aisles  # bakery
    for row, probability in zip(rows, scores.aisle_confidence, strict=True):
        assert float(row["predicted_aisle_probability"]) == pytest.approx(probability, abs=1e-6)
        assert probability <= float(row["predicted_probability"]) + 1e-6
    assert blank["predicted_aisle"] == blank["predicted_aisle_probability"] == ""


def test_aisle_below_min_probability_is_empty(
    tmp_path: Path, two_level_bundle: LoadedBundle
) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_csv(source, [f"name {i}" for i in range(20)])
    counts = classify(source, out, two_level_bundle.path, min_probability=0.6, load=load)
    rows = read_csv(out)
    assert counts["classified"] == sum(row["predicted_department"] != "" for row in rows) > 0
    assert any(row["predicted_department"] and not row["predicted_aisle"] for row in rows)
    assert not any(row["predicted_aisle"] and not row["predicted_department"] for row in rows)


def test_distinct_names_of_a_chunk_are_scored_once(tmp_path: Path, bundle: LoadedBundle) -> None:
    scorer = StubScorer(LABELS)
    source = write_csv(tmp_path / "in.csv", ["Milk", "Bread"] * 50)
    classify(source, tmp_path / "out.csv", bundle.path, load=lambda _: scorer)
    assert scorer.passes == [["Milk", "Bread"]]


class KilledError(BaseException):
    """Replaces SIGKILL: no handler may clean up."""


class KilledScorer(StubScorer):
    """Fails after a number of chunks."""

    def __init__(self, chunks: int) -> None:
        super().__init__(LABELS)
        self.chunks = chunks

    def predict(self, names: Sequence[str]) -> Scores:
        if len(self.passes) == self.chunks:
            raise KilledError
        return super().predict(names)


def test_killed_run_resumes_to_the_same_bytes(tmp_path: Path, bundle: LoadedBundle) -> None:
    source = write_csv(tmp_path / "in.csv", [f"name {i}" for i in range(25)])
    classify(source, tmp_path / "expected.csv", bundle.path, chunk_rows=4, load=load)
    out, second = tmp_path / "out.csv", StubScorer(LABELS)
    with pytest.raises(KilledError):
        classify(source, out, bundle.path, chunk_rows=4, load=lambda _: KilledScorer(3))
    assert not out.exists()
    # A partial file, as a kill during a write leaves it.
    (tmp_path / ".out.csv.classify" / ".00000003.chunk.x.part").write_text("partial")
    classify(source, out, bundle.path, chunk_rows=4, load=lambda _: second)
    assert len(second.passes) == 4
    assert out.read_bytes() == (tmp_path / "expected.csv").read_bytes()


@pytest.mark.parametrize("damage", [b"", b"0,name 0,bakery,0.5\n", None])
def test_damaged_chunk_is_written_again(
    tmp_path: Path, bundle: LoadedBundle, damage: bytes | None
) -> None:
    """A power failure, or a full disk, may leave a chunk without all of its rows."""
    source = write_csv(tmp_path / "in.csv", [f"name {i}" for i in range(25)])
    classify(source, tmp_path / "expected.csv", bundle.path, chunk_rows=4, load=load)
    out = tmp_path / "out.csv"
    with pytest.raises(KilledError):
        classify(source, out, bundle.path, chunk_rows=4, load=lambda _: KilledScorer(3))
    chunk = tmp_path / ".out.csv.classify" / "00000000.chunk"
    if damage is None:
        chunk.with_suffix(".json").unlink()
    else:
        chunk.write_bytes(damage)
    counts = classify(source, out, bundle.path, chunk_rows=4, load=load)
    assert counts["rows"] == 25
    assert out.read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_changed_source_or_correction_starts_over(tmp_path: Path, bundle: LoadedBundle) -> None:
    out, source = tmp_path / "out.csv", write_csv(tmp_path / "in.csv", ["a", "b"])
    with pytest.raises(KilledError):
        classify(source, out, bundle.path, chunk_rows=1, load=lambda _: KilledScorer(1))
    classify(write_csv(source, ["c", "d"]), out, bundle.path, chunk_rows=1, load=load)
    labels = [row["predicted_department"] for row in read_csv(out)]
    assert labels == [expected_label("c"), expected_label("d")]
    out.unlink()
    with pytest.raises(KilledError):
        classify(source, out, bundle.path, chunk_rows=1, load=lambda _: KilledScorer(1))
    classify(source, out, bundle.path, chunk_rows=1, load=load, corrections={"c": "other"})
    assert read_csv(out)[0]["predicted_department"] == "other"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"id,name\n1,Milk\n", "no column 'product_name'; found id, name; set --column"),
        (b"product_name,product_name\na,b\n", "product_name"),
        (b"id,product_name\n1,Milk\n2\n", "line 3: expected 2 fields, found 1"),
        (b"id,product_name\n1,\xff\n", "not UTF-8"),
        (b'id,product_name\n1,"Milk\n', "line 2: unexpected end of data"),
        (b"product_name,predicted_department\na,b\n", "'predicted_department' already exists"),
    ],
)
def test_invalid_source_is_rejected_and_leaves_no_file(
    tmp_path: Path, bundle: LoadedBundle, content: bytes, message: str
) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(TableError, match=message):
        classify(tmp_path / "in.csv", tmp_path / "out.csv", bundle.path, load=load)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_existing_aisle_column_is_rejected(tmp_path: Path, two_level_bundle: LoadedBundle) -> None:
    source = tmp_path / "in.csv"
    source.write_text("product_name,predicted_aisle\nMilk,dairy\n")
    with pytest.raises(TableError, match="'predicted_aisle' already exists"):
        classify(source, tmp_path / "out.csv", two_level_bundle.path, load=load)


def test_invalid_arguments_are_rejected_before_work_starts(
    tmp_path: Path, bundle: LoadedBundle
) -> None:
    source, out = write_csv(tmp_path / "in.csv", ["Milk"]), tmp_path / "out.csv"
    with pytest.raises(ConfigError, match=r"\.csv or \.parquet \(lower case\); save a spreadsheet"):
        classify(source, tmp_path / "out.CSV", bundle.path, load=load)
    with pytest.raises(GrocerError, match=r"absent\.csv"):
        classify(tmp_path / "absent.csv", out, bundle.path, load=load)
    with pytest.raises(BundleError):
        classify(source, out, tmp_path, load=load)
    (tmp_path / "fake.parquet").write_text("no")
    with pytest.raises(GrocerError, match="cannot read as Parquet"):
        classify(tmp_path / "fake.parquet", out, bundle.path, load=load)
    out.write_text("existing")
    with pytest.raises(OutputError, match="already exists"):
        classify(source, out, bundle.path, load=load)


def test_concurrent_runs_with_the_same_output_are_rejected(
    tmp_path: Path, bundle: LoadedBundle
) -> None:
    source, out = write_csv(tmp_path / "in.csv", ["Milk"]), tmp_path / "out.csv"

    def load_while_second_run_starts(bundle: LoadedBundle) -> StubScorer:
        with pytest.raises(OutputError, match="is being written by another run"):
            classify(source, out, bundle.path, load=load)
        return load(bundle)

    classify(source, out, bundle.path, load=load_while_second_run_starts)
