"""Protects checkpoints: whole or passed over, of this run alone, in a directory and on S3."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest

from grocer.errors import OutputError
from grocer.io.atomic import tree_digests
from grocer.training.checkpoints import Checkpoints

IDENTITY = {"data": "d", "train": {"seed": 1}}


@pytest.fixture(params=["directory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "directory":
        return str(tmp_path / "outlives")
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("moto"))
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    bucket = f"checkpoints-{abs(hash(str(tmp_path)))}"
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/grocer"


def checkpoint(parent: Path, step: int) -> Path:
    made = parent / f"checkpoint-{step}"
    (made / "inner").mkdir(parents=True)
    (made / "adapter.safetensors").write_bytes(bytes([step]) * 1000)
    (made / "inner" / "state.json").write_text(json.dumps({"step": step}))
    return made


def opened(root: str, **changes: object) -> Checkpoints:
    return Checkpoints(root, {**IDENTITY, **changes})


def test_the_newest_comes_back_byte_for_byte(root: str, tmp_path: Path) -> None:
    for step in (5, 25, 100):
        made = checkpoint(tmp_path, step)
        opened(root).publish(made)
    back = opened(root).newest(tmp_path / "back")
    assert back is not None
    assert back.name == "checkpoint-100"
    assert tree_digests(back) == tree_digests(made)


def test_none_where_there_is_none(root: str, tmp_path: Path) -> None:
    assert opened(root).newest(tmp_path / "back") is None


def test_two_are_kept(root: str, tmp_path: Path) -> None:
    store = opened(root)
    for step in (1, 2, 3):
        store.publish(checkpoint(tmp_path, step))
    assert store._names() == ["checkpoint-000003", "checkpoint-000002"]


def test_published_again_it_is_the_new_one(root: str, tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 7)
    opened(root).publish(made)
    (made / "inner" / "state.json").unlink()
    opened(root).publish(made)
    back = opened(root).newest(tmp_path / "back")
    assert back is not None
    assert tree_digests(back) == tree_digests(made)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("whole.json", None, "no whole.json"),
        ("whole.json", b'{"adapter', "whole.json can't be read"),
        ("adapter.safetensors", None, "adapter.safetensors is not there"),
        ("adapter.safetensors", b"torn", "adapter.safetensors is not what was written"),
        ("inner/state.json", b"", "inner/state.json is not what was written"),
    ],
)
def test_a_torn_one_is_passed_over_with_a_line(
    root: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: bytes | None,
    said: str,
) -> None:
    store = opened(root)
    store.publish(checkpoint(tmp_path, 1))
    address = store.publish(checkpoint(tmp_path, 2))
    name = f"checkpoint-000002/{file}"
    if content is None:
        store.storage.remove(name)
    else:
        store.storage.write_bytes(content, name)
    back = opened(root).newest(tmp_path / "back")
    assert back is not None
    assert back.name == "checkpoint-1"
    line = f"grocer | train | passing over {address}: it is torn ({said})\n"
    assert capsys.readouterr().out == line
    assert not (tmp_path / "back" / "checkpoint-2").exists()


def test_another_run_sees_none_of_it(root: str, tmp_path: Path) -> None:
    opened(root).publish(checkpoint(tmp_path, 1))
    assert opened(root, data="other").newest(tmp_path / "back") is None


def test_a_place_that_cant_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"train.checkpoints: cannot write .*file/outlives"):
        Checkpoints(f"{tmp_path}/file/outlives", IDENTITY)


def test_a_bucket_that_is_not_there_is_refused_at_once(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(OutputError, match=r"train.checkpoints: cannot write s3://no-such-bucket"):
        Checkpoints("s3://no-such-bucket/grocer", IDENTITY)
