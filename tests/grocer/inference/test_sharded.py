"""Protects a table that is answered in shards: the same file as in one piece, or a clear no."""

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
from grocer.inference import sharded as shards
from grocer.inference.batch import classify
from grocer.release import registry as store
from grocer.release.bundle import Bundle
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.predictor import StubScorer

NAMES = ["Milk", 'Green Tea, 25% \\"', "", "Crème", "Bread\nwith seeds", "  ", "Oat\rMilk"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "CHUNK_ROWS", 4)


def load(bundle: Bundle) -> StubScorer:
    return StubScorer(bundle.labels)


def write(path: Path, rows: int = 25) -> Path:
    """A table, as CSV or Parquet, of names that quoting and blanks make hard."""
    names = [f"{NAMES[i % len(NAMES)]}{i if i % 7 < 2 else ''}" for i in range(rows)]
    table = pa.table({"id": pa.array(range(rows)), "product_name": pa.array(names, pa.string())})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return path
    from grocer.io.tables import join_parts, write_part

    write_part(path.with_suffix(".part"), table, ".csv")
    join_parts([path.with_suffix(".part")], table.schema, path, ".csv")
    path.with_suffix(".part").unlink()
    return path


def whole(source: Path, out: Path, bundle: Bundle, **options: Any) -> dict[str, int]:
    return classify(source, out, bundle.path, chunk_rows=4, load=load, **options)


@pytest.mark.parametrize("format", ["csv", "parquet"])
@pytest.mark.parametrize(("count", "made"), [(1, 1), (3, 3), (100, 7)])
def test_shards_give_what_the_whole_gives(
    tmp_path: Path, bundle: Bundle, format: str, count: int, made: int
) -> None:
    source, out = write(tmp_path / f"in.{format}"), tmp_path / "out" / f"out.{format}"
    cut = shards.shard_table(
        str(source), str(out), str(bundle.path), shards=count, min_probability=0.4
    )
    assert len(cut) == made
    answered = [shards.classify_shard(shard, load) for shard in cut]
    counts = shards.merge_shards(cut)
    expected = whole(source, tmp_path / f"whole.{format}", bundle, min_probability=0.4)
    assert counts == expected
    assert sum(each["rows"] for each in answered) == 25
    if format == "csv":
        assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    else:
        assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))
    assert list(out.parent.iterdir()) == [out]


def test_formats_may_differ(tmp_path: Path, bundle: Bundle) -> None:
    source, out = write(tmp_path / "in.csv"), tmp_path / "out.parquet"
    cut = shards.shard_table(str(source), str(out), str(bundle.path), shards=2)
    for shard in cut:
        shards.classify_shard(shard, load)
    shards.merge_shards(cut)
    whole(source, tmp_path / "whole.parquet", bundle)
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "whole.parquet"))


def test_an_empty_table_keeps_its_columns(tmp_path: Path, bundle: Bundle) -> None:
    source, out = write(tmp_path / "in.csv", rows=0), tmp_path / "out.csv"
    cut = shards.shard_table(str(source), str(out), str(bundle.path), shards=8)
    assert [shards.classify_shard(shard, load)["rows"] for shard in cut] == [0]
    assert shards.merge_shards(cut)["rows"] == 0
    assert out.read_text() == "id,product_name,predicted_department,predicted_probability\n"


def test_what_is_answered_is_not_done_again(tmp_path: Path, bundle: Bundle) -> None:
    source, out = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    cut = shards.shard_table(str(source), str(out), str(bundle.path), shards=3)
    first = shards.classify_shard(cut[0], load)

    def never(bundle: Bundle) -> StubScorer:
        raise AssertionError

    again = shards.shard_table(str(source), str(out), str(bundle.path), shards=3)
    assert again == cut
    assert shards.classify_shard(cut[0], never) == first
    with pytest.raises(AssertionError):
        shards.classify_shard(cut[1], never)


def test_a_shard_whose_answers_are_missing_keeps_the_rest(tmp_path: Path, bundle: Bundle) -> None:
    source, out = write(tmp_path / "in.csv"), tmp_path / "out.csv"
    cut = shards.shard_table(str(source), str(out), str(bundle.path), shards=3)
    for shard in cut[:2]:
        shards.classify_shard(shard, load)
    with pytest.raises(OutputError, match=r"cannot read .*00002\.json"):
        shards.merge_shards(cut)
    with pytest.raises(OutputError, match="24 of 25 rows are classified"):
        shards.merge_shards(cut[:2])
    assert not out.exists()
    shards.classify_shard(cut[2], load)
    assert shards.merge_shards(cut)["rows"] == 25


def test_the_day_and_the_time_name_the_output(tmp_path: Path, bundle: Bundle) -> None:
    source = write(tmp_path / "in.csv")
    now = datetime(2026, 11, 25, 3, 4, 5, tzinfo=UTC)
    out = str(tmp_path / "{date}" / "{time}.csv")
    cut = shards.shard_table(str(source), out, str(bundle.path), shards=1, now=now)
    shards.classify_shard(cut[0], load)
    shards.merge_shards(cut)
    assert (tmp_path / "2026-11-25" / "2026-11-25T03-04-05Z.csv").exists()


@pytest.mark.parametrize(
    ("changed", "kind", "line"),
    [
        ({"bundle": ""}, BundleError, "no bundle is deployed; deploy one, or set --bundle"),
        ({"out": "{tmp}/in.csv"}, OutputError, "in.csv already exists; remove it, or put {date}"),
        ({"out": "{tmp}/out.xlsx"}, ConfigError, "expected a name that ends in .csv or .parquet"),
        ({"source": "{tmp}/absent.csv"}, SourceError, "--data: cannot read"),
        ({"column": "name"}, TableError, "no column 'name'; found id, product_name"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(
    tmp_path: Path, bundle: Bundle, changed: dict[str, str], kind: type[GrocerError], line: str
) -> None:
    write(tmp_path / "in.csv")
    given = {"source": "{tmp}/in.csv", "out": "{tmp}/out.csv", "bundle": str(bundle.path)}
    given = {k: v.replace("{tmp}", str(tmp_path)) for k, v in (given | changed).items()}
    with pytest.raises(kind) as caught:
        shards.shard_table(**given, shards=2)  # type: ignore[arg-type]
    assert line in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_on_s3_from_table_to_table(
    moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Bundle
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client = boto3.client("s3", region_name="us-east-1")
    bucket = f"bulk-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    source = write(tmp_path / "in.csv")
    client.upload_file(str(source), bucket, "in/names.csv")
    address = store.publish(bundle, f"s3://{bucket}/bundles")
    out = f"s3://{bucket}/out/answers.csv"
    cut = shards.shard_table(f"s3://{bucket}/in/names.csv", out, address, shards=3)
    for shard in cut:
        shards.classify_shard(shard, load)
    assert shards.merge_shards(cut)["rows"] == 25
    client.download_file(bucket, "out/answers.csv", str(tmp_path / "got.csv"))
    whole(source, tmp_path / "whole.csv", bundle)
    assert (tmp_path / "got.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    left = client.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]
    assert [each["Key"] for each in left] == ["out/answers.csv"]
    with pytest.raises(OutputError, match=r"answers\.csv already exists"):
        shards.shard_table(f"s3://{bucket}/in/names.csv", out, address, shards=3)
    with pytest.raises(SourceError, match=r"--data: cannot read s3://absent-bucket/x\.csv"):
        shards.shard_table(
            "s3://absent-bucket/x.csv", f"s3://{bucket}/other.csv", address, shards=3
        )
