"""Sharded classification: the same output as for the unsplit table, on disk and on S3."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
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
from grocer.io.tables import join_parts, write_part
from grocer.release import registry
from grocer.release.bundle import LoadedBundle
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.predictor import StubScorer

NAMES = ["Milk", 'Green Tea, 25% \\"', "", "Crème", "Bread\nwith seeds", "  ", "Oat\rMilk"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


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


@pytest.mark.parametrize(
    ("source", "out", "shards", "expected_shards"),
    [
        ("in.csv", "out.csv", 1, 1),
        ("in.csv", "out.csv", 3, 3),
        ("in.csv", "out.csv", 100, 7),
        ("in.parquet", "out.parquet", 3, 3),
        ("in.csv", "out.parquet", 2, 2),
    ],
)
def test_shards_equal_the_unsplit_table(
    tmp_path: Path, bundle: LoadedBundle, source: str, out: str, shards: int, expected_shards: int
) -> None:
    table, result = write_table(tmp_path / source), tmp_path / "out" / out
    addresses = shard_table(
        str(table), str(result), str(bundle.path), shards=shards, min_probability=0.4
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
    assert list(result.parent.iterdir()) == [result]


def test_empty_table_keeps_its_columns(tmp_path: Path, bundle: LoadedBundle) -> None:
    source, out = write_table(tmp_path / "in.csv", rows=0), tmp_path / "out.csv"
    addresses = shard_table(str(source), str(out), str(bundle.path), shards=8)
    assert [classify_shard(shard, load)["rows"] for shard in addresses] == [0]
    assert merge_shards(addresses)["rows"] == 0
    assert out.read_text() == "id,product_name,predicted_department,predicted_probability\n"


def test_complete_shards_are_not_classified_again(tmp_path: Path, bundle: LoadedBundle) -> None:
    source, out = write_table(tmp_path / "in.csv"), tmp_path / "out.csv"
    addresses = shard_table(str(source), str(out), str(bundle.path), shards=3)
    counts = classify_shard(addresses[0], load)

    def fail(bundle: LoadedBundle) -> StubScorer:
        raise AssertionError

    assert shard_table(str(source), str(out), str(bundle.path), shards=3) == addresses
    assert classify_shard(addresses[0], fail) == counts
    with pytest.raises(AssertionError):
        classify_shard(addresses[1], fail)


def test_merge_without_all_shards_is_rejected_and_keeps_them(
    tmp_path: Path, bundle: LoadedBundle
) -> None:
    source, out = write_table(tmp_path / "in.csv"), tmp_path / "out.csv"
    addresses = shard_table(str(source), str(out), str(bundle.path), shards=3)
    for shard in addresses[:2]:
        classify_shard(shard, load)
    with pytest.raises(OutputError, match=r"00002\.json"):
        merge_shards(addresses)
    with pytest.raises(OutputError, match="24 of 25 rows"):
        merge_shards(addresses[:2])
    assert not out.exists()
    classify_shard(addresses[2], load)
    assert merge_shards(addresses)["rows"] == 25


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
        shard_table(**arguments, shards=2)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_table_on_s3(s3_environment: str, tmp_path: Path, bundle: LoadedBundle) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    bucket = f"bulk-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    table = write_table(tmp_path / "in.csv")
    client.upload_file(str(table), bucket, "in/names.csv")
    address = registry.publish(bundle, f"s3://{bucket}/bundles")
    source, out = f"s3://{bucket}/in/names.csv", f"s3://{bucket}/out/classified.csv"
    addresses = shard_table(source, out, address, shards=3)
    for shard in addresses:
        classify_shard(shard, load)
    assert merge_shards(addresses)["rows"] == 25
    client.download_file(bucket, "out/classified.csv", str(tmp_path / "result.csv"))
    classify_whole(table, tmp_path / "expected.csv", bundle)
    assert (tmp_path / "result.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()
    objects = client.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]
    assert [each["Key"] for each in objects] == ["out/classified.csv"]
    with pytest.raises(OutputError, match=r"classified\.csv already exists"):
        shard_table(source, out, address, shards=3)
    with pytest.raises(SourceError, match=r"s3://absent-bucket/x\.csv"):
        shard_table("s3://absent-bucket/x.csv", f"s3://{bucket}/other.csv", address, shards=3)
