"""Checkpoints: complete or skipped, private to one run, on disk and on S3."""

import json
from pathlib import Path

import boto3
import pytest

from grocer.errors import OutputError
from grocer.io.atomic import tree_digests
from grocer.training.checkpoints import Checkpoints

IDENTITY = {"data": "d", "train": {"seed": 1}}


@pytest.fixture(params=["directory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return str(tmp_path / "checkpoints")
    bucket = f"checkpoints-{abs(hash(str(tmp_path)))}"
    request.getfixturevalue("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/grocer"


def make_checkpoint(parent: Path, step: int) -> Path:
    path = parent / f"checkpoint-{step}"
    (path / "inner").mkdir(parents=True)
    (path / "adapter.safetensors").write_bytes(bytes([step]) * 1000)
    (path / "inner" / "state.json").write_text(json.dumps({"step": step}))
    return path


def test_newest_checkpoint_is_fetched_and_two_are_kept(root: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(root, IDENTITY)
    for step in (5, 25, 100):
        path = make_checkpoint(tmp_path, step)
        checkpoints.publish(path)
    fetched = Checkpoints(root, IDENTITY).fetch_newest(tmp_path / "fetched")
    assert fetched == tmp_path / "fetched" / "checkpoint-100"
    assert tree_digests(fetched) == tree_digests(path)
    assert checkpoints._names() == ["checkpoint-000100", "checkpoint-000025"]


def test_other_runs_have_no_checkpoint(root: str, tmp_path: Path) -> None:
    Checkpoints(root, IDENTITY).publish(make_checkpoint(tmp_path, 1))
    other = Checkpoints(root, {**IDENTITY, "data": "other"})
    assert other.fetch_newest(tmp_path / "fetched") is None


def test_publishing_a_step_again_replaces_it(root: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, 7)
    Checkpoints(root, IDENTITY).publish(path)
    (path / "inner" / "state.json").unlink()
    Checkpoints(root, IDENTITY).publish(path)
    fetched = Checkpoints(root, IDENTITY).fetch_newest(tmp_path / "fetched")
    assert tree_digests(fetched) == tree_digests(path)


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("whole.json", None, "whole.json is missing"),
        ("whole.json", b'{"adapter', "whole.json is not a valid list of files"),
        ("whole.json", b'{"a": "b"}', "whole.json is not a valid list of files"),
        ("whole.json", b'{"../outside": [1, "a"]}', "'../outside' is not a valid file name"),
        ("whole.json", b'{"/tmp/outside": [1, "a"]}', "'/tmp/outside' is not a valid file name"),
        ("whole.json", b'{"//tmp/a": [1, "a"]}', "'//tmp/a' is not a valid file name"),
        ("adapter.safetensors", None, "adapter.safetensors is missing"),
        ("adapter.safetensors", b"torn", "adapter.safetensors has 4 bytes instead of 1000"),
        ("adapter.safetensors", bytes(1000), "adapter.safetensors has another digest"),
        ("inner/state.json", b"", "inner/state.json has 0 bytes instead of 11"),
    ],
)
def test_incomplete_checkpoint_is_skipped_and_reported(
    root: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: bytes | None,
    problem: str,
) -> None:
    checkpoints = Checkpoints(root, IDENTITY)
    checkpoints.publish(make_checkpoint(tmp_path, 1))
    address = checkpoints.publish(make_checkpoint(tmp_path, 2))
    if content is None:
        checkpoints.storage.remove(f"checkpoint-000002/{file}")
    else:
        checkpoints.storage.write_bytes(content, f"checkpoint-000002/{file}")
    fetched = Checkpoints(root, IDENTITY).fetch_newest(tmp_path / "fetched")
    assert fetched == tmp_path / "fetched" / "checkpoint-1"
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{address}: {problem}" in line
    assert not (tmp_path / "fetched" / "checkpoint-2").exists()


def test_only_listed_files_of_a_checkpoint_are_read(root: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(root, IDENTITY)
    checkpoints.publish(make_checkpoint(tmp_path, 1))
    for name in ("checkpoint-000001/extra.bin", "checkpoint-x/whole.json", "checkpoint-9"):
        checkpoints.storage.write_bytes(b"x", name)
    if root.startswith("s3://"):
        bucket, prefix = checkpoints.address.removeprefix("s3://").split("/", 1)
        for key in (f"//{tmp_path}/outside", "../../outside"):
            boto3.client("s3", region_name="us-east-1").put_object(
                Bucket=bucket, Key=f"{prefix}/checkpoint-000001/{key}", Body=b"x"
            )
    fetched = checkpoints.fetch_newest(tmp_path / "fetched")
    assert sorted(tree_digests(fetched)) == ["adapter.safetensors", "inner/state.json"]
    assert not (tmp_path / "outside").exists()


def test_unwritable_directory_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"train.checkpoints: cannot write .*file/checkpoints"):
        Checkpoints(f"{tmp_path}/file/checkpoints", IDENTITY)


@pytest.mark.usefixtures("s3_environment")
def test_missing_bucket_is_rejected() -> None:
    with pytest.raises(OutputError, match=r"train.checkpoints: cannot write s3://no-such-bucket"):
        Checkpoints("s3://no-such-bucket/grocer", IDENTITY)
