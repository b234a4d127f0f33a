"""Sharded classification: the same output as for the unsplit table, on disk and on S3."""

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grocer.errors import (
    BundleError,
    ConfigError,
    GrocerError,
    OutputError,
    SourceError,
    TableError,
)
from grocer.inference import sharded
from grocer.inference.batch import classify
from grocer.inference.sharded import classify_shard, merge_shards, shard_table
from grocer.io.storage import Storage
from grocer.io.tables import join_parts, write_part
from grocer.release import registry
from grocer.release.bundle import LoadedBundle
from tests.fixtures.predictor import StubScorer

NAMES = ["Milk", 'Green Tea, 25% \\"', "", "Crème", "Bread\nwith seeds", "  ", "Oat\rMilk"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "CHUNK_ROWS", 4)


def load(bundle: LoadedBundle) -> StubScorer:
    return StubScorer(bundle.labels)


def write_table(path: Path, rows: int = 25) -> Path:
    """Write CSV or Parquet with names that need quoting, and blank ones."""
    names = [f"{NAMES[i % len(NAMES)]}{i if i % 7 < 2 else ''}" for i in range(rows)]
    table = pa.table({"id": pa.array(range(rows)), "product_name": pa.array(names, pa.string())})
    part = path.with_suffix(".part")
    write_part(part, table, path.suffix)
    join_parts([part], table.schema, path, path.suffix)
    part.unlink()
    return path


def classify_whole(source: Path, out: Path, bundle: LoadedBundle, **options: Any) -> dict[str, int]:
    return classify(source, out, bundle.path, chunk_rows=4, load=load, **options)


@pytest.fixture
def shards(tmp_path: Path, bundle: LoadedBundle) -> list[str]:
    """Three shards of `in.csv` with the output `out.csv`."""
    source, out = write_table(tmp_path / "in.csv"), tmp_path / "out.csv"
    return shard_table(str(source), str(out), str(bundle.path), shards=3)


@pytest.mark.parametrize(
    ("source", "out", "count", "expected_shards"),
    [
        ("in.csv", "out.csv", 1, 1),
        ("in.csv", "out.csv", 3, 3),
        ("in.csv", "out.csv", 100, 7),
        ("in.parquet", "out.parquet", 3, 3),
        ("in.csv", "out.parquet", 2, 2),
    ],
)
def test_shards_equal_the_unsplit_table(
    tmp_path: Path, bundle: LoadedBundle, source: str, out: str, count: int, expected_shards: int
) -> None:
    table, result = write_table(tmp_path / source), tmp_path / "out" / out
    addresses = shard_table(
        str(table), str(result), str(bundle.path), shards=count, min_probability=0.4
    )
    assert len(addresses) == expected_shards
    assert sum(classify_shard(shard, load)["rows"] for shard in addresses) == 25
    expected = tmp_path / f"expected{result.suffix}"
    counts = classify_whole(table, expected, bundle, min_probability=0.4)
    assert merge_shards(addresses) == counts
    if result.suffix == ".csv":
        assert result.read_bytes() == expected.read_bytes()
    else:
        assert pq.read_table(result).equals(pq.read_table(expected))
    assert set(result.parent.iterdir()) == {result, Path(f"{result}.json")}


def test_empty_table_keeps_its_columns(tmp_path: Path, bundle: LoadedBundle) -> None:
    source, out = write_table(tmp_path / "in.csv", rows=0), tmp_path / "out.csv"
    addresses = shard_table(str(source), str(out), str(bundle.path), shards=8)
    assert [classify_shard(shard, load)["rows"] for shard in addresses] == [0]
    assert merge_shards(addresses)["rows"] == 0
    assert out.read_text() == "id,product_name,predicted_department,predicted_probability\n"


def test_complete_shards_are_not_classified_again(
    shards: list[str], tmp_path: Path, bundle: LoadedBundle
) -> None:
    counts = classify_shard(shards[0], load)

    def fail(bundle: LoadedBundle) -> StubScorer:
        raise AssertionError

    source, out = str(tmp_path / "in.csv"), str(tmp_path / "out.csv")
    assert shard_table(source, out, str(bundle.path), shards=3) == shards
    assert classify_shard(shards[0], fail) == counts
    with pytest.raises(AssertionError):
        classify_shard(shards[1], fail)


def test_merge_without_all_shards_is_rejected_and_keeps_them(
    shards: list[str], tmp_path: Path
) -> None:
    for shard in shards[:2]:
        classify_shard(shard, load)
    with pytest.raises(OutputError, match=r"00002\.json"):
        merge_shards(shards)
    with pytest.raises(OutputError, match="has 3 shards, but 2 were given"):
        merge_shards(shards[:2])
    assert not (tmp_path / "out.csv").exists()
    classify_shard(shards[2], load)
    assert merge_shards(shards)["rows"] == 25


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("removed", [None, 0, 1, 4])
def test_merge_can_be_repeated_after_a_kill(
    tmp_path: Path,
    bundle: LoadedBundle,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    removed: int | None,
) -> None:
    """It is killed when the output is written, or after this number of shards is removed."""
    source, out = write_table(tmp_path / f"in{suffix}"), tmp_path / "out" / f"out{suffix}"
    addresses = shard_table(str(source), str(out), str(bundle.path), shards=3, min_probability=0.6)
    for shard in addresses:
        classify_shard(shard, load)

    def killed(self: Storage, name: str = "") -> None:
        if removed is None or not name:
            for file in sorted(self.find())[: removed or 0]:
                Path(self.address, file).unlink()
            raise KeyboardInterrupt
        remove(self, name)

    remove = Storage.remove
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            merge_shards(addresses)
    content = out.read_bytes()
    expected = classify_whole(source, tmp_path / f"all{suffix}", bundle, min_probability=0.6)
    assert expected["low_confidence"] > 0
    for _ in range(2):
        assert merge_shards(addresses) == expected
        assert out.read_bytes() == content
        assert set(out.parent.iterdir()) == {out, Path(f"{out}.json")}


def test_merge_of_fewer_rows_is_rejected(shards: list[str], tmp_path: Path) -> None:
    for shard in shards:
        classify_shard(shard, load)
    record = Path(shards[1]).with_suffix(".json")
    content = json.loads(record.read_text())
    content["counts"]["rows"] -= 1
    record.write_text(json.dumps(content))
    with pytest.raises(OutputError, match="24 of 25 rows are classified"):
        merge_shards(shards)
    assert not (tmp_path / "out.csv").exists()


def test_changed_files_of_a_shard_are_rejected(shards: list[str], tmp_path: Path) -> None:
    shard = Path(shards[1])
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    with pytest.raises(OutputError, match=r"was modified: 00001\.csv has \d+ bytes instead of"):
        classify_shard(shards[1], load)
    shard.write_bytes(content[:-2] + b"x\n")
    with pytest.raises(OutputError, match=r"was modified: 00001\.csv has another SHA-256"):
        classify_shard(shards[1], load)
    shard.write_bytes(content)
    for address in shards:
        classify_shard(address, load)
    with pytest.raises(OutputError, match=r"was modified: outside is not in plan\.json"):
        classify_shard(f"{shard.parent}/outside", load)
    result = shard.with_name("00001.classified.csv")
    result.write_text("".join(result.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(OutputError, match=r"was modified: 00001\.classified\.csv has"):
        merge_shards(shards)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    "change",
    [
        *("", "[]", "{}", '{"plan": {}, "files": {}}', '{"plan": 1, "files": {"a": 1}}'),
        "out",
        "rows",
    ],
)
def test_changed_plan_is_rejected(shards: list[str], change: str) -> None:
    """It names the bundle that is loaded, and the file that is written."""
    plan = Path(shards[0]).with_name("plan.json")
    if change.isalpha():
        changed = json.loads(plan.read_text())
        changed["plan"][change] = "/tmp/other"
        change = json.dumps(changed)
    plan.write_text(change)
    for step in (lambda: classify_shard(shards[0], load), lambda: merge_shards(shards)):
        with pytest.raises(OutputError, match=r"plan\.json was modified"):
            step()


def test_date_and_time_in_the_output_name_are_replaced(
    tmp_path: Path, bundle: LoadedBundle
) -> None:
    source = write_table(tmp_path / "in.csv")
    now = datetime(2026, 11, 25, 3, 4, 5, tzinfo=UTC)
    out = str(tmp_path / "{date}" / "{time}.csv")
    (shard,) = shard_table(str(source), out, str(bundle.path), shards=1, now=now)
    classify_shard(shard, load)
    merge_shards([shard])
    assert (tmp_path / "2026-11-25" / "2026-11-25T03-04-05Z.csv").exists()


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"bundle": ""}, BundleError, "no bundle is deployed"),
        ({"out": "{tmp}/in.csv"}, OutputError, "in.csv already exists"),
        ({"out": "{tmp}/out.xlsx"}, ConfigError, ".csv or .parquet"),
        ({"source": "{tmp}/absent.csv"}, SourceError, "--data: cannot read"),
        ({"column": "name"}, TableError, "no column 'name'; found id, product_name"),
    ],
)
def test_invalid_arguments_are_rejected_before_work_starts(
    tmp_path: Path,
    bundle: LoadedBundle,
    changed: dict[str, str],
    kind: type[GrocerError],
    message: str,
) -> None:
    write_table(tmp_path / "in.csv")
    arguments = {"source": "{tmp}/in.csv", "out": "{tmp}/out.csv", "bundle": str(bundle.path)}
    arguments = {k: v.replace("{tmp}", str(tmp_path)) for k, v in (arguments | changed).items()}
    with pytest.raises(kind) as caught:
        shard_table(**arguments, shards=2)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_table_on_s3(s3: Any, tmp_path: Path, bundle: LoadedBundle) -> None:
    bucket = f"bulk-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=bucket)
    table = write_table(tmp_path / "in.csv")
    s3.upload_file(str(table), bucket, "in/names.csv")
    address = registry.publish(bundle, f"s3://{bucket}/bundles")
    source, out = f"s3://{bucket}/in/names.csv", f"s3://{bucket}/out/classified.csv"
    addresses = shard_table(source, out, address, shards=3)
    for shard in addresses:
        classify_shard(shard, load)
    assert merge_shards(addresses)["rows"] == 25
    s3.download_file(bucket, "out/classified.csv", str(tmp_path / "result.csv"))
    classify_whole(table, tmp_path / "expected.csv", bundle)
    assert (tmp_path / "result.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()
    objects = s3.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]
    keys = [each["Key"] for each in objects]
    assert keys == ["out/classified.csv", "out/classified.csv.json"]
    with pytest.raises(OutputError, match=r"classified\.csv already exists"):
        shard_table(source, out, address, shards=3)
    with pytest.raises(SourceError, match=r"s3://absent-bucket/x\.csv"):
        shard_table("s3://absent-bucket/x.csv", f"s3://{bucket}/other.csv", address, shards=3)
