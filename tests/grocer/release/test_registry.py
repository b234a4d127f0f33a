"""Protects the store of bundles, on a real S3 server: whole, checked, and never changed."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest

from grocer.errors import BundleError, OutputError
from grocer.io.atomic import tree_digests
from grocer.release import registry as store
from grocer.release.bundle import MANIFEST, Bundle
from tests.fixtures.artifacts import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def s3(moto: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return boto3.client("s3", region_name="us-east-1")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"bundles-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def keys(s3: Any, bucket: str) -> list[str]:
    """Key of each object, once for every time that it was written."""
    found = s3.list_object_versions(Bucket=bucket).get("Versions", [])
    return [each["Key"] for each in found]


def test_a_bundle_comes_back_byte_for_byte(bundle: Bundle, bucket: str, tmp_path: Path) -> None:
    address = store.publish(bundle, f"s3://{bucket}/models/")
    assert address == f"s3://{bucket}/models/{bundle.digest}"
    back = store.fetch(address, tmp_path)
    assert back.path == tmp_path / bundle.digest
    assert tree_digests(back.path) == tree_digests(bundle.path)


def test_published_again_nothing_is_written(bundle: Bundle, bucket: str, s3: Any) -> None:
    for _ in range(2):
        store.publish(bundle, f"s3://{bucket}")
    written = sorted(f"{bundle.digest}/{name}" for name in tree_digests(bundle.path))
    assert sorted(keys(s3, bucket)) == written


def test_a_part_of_a_bundle_never_serves_and_is_completed(
    bundle: Bundle, bucket: str, s3: Any, tmp_path: Path
) -> None:
    """A killed run leaves any first files; the manifest is always the last."""
    address = store.publish(bundle, f"s3://{bucket}")
    for name in (MANIFEST, "MODEL_CARD.md"):
        s3.delete_object(Bucket=bucket, Key=f"{bundle.digest}/{name}")
    with pytest.raises(BundleError, match="no bundle is there, or only a part"):
        store.fetch(address, tmp_path / "part")
    assert store.publish(bundle, f"s3://{bucket}") == address
    assert store.fetch(address, tmp_path / "whole").digest == bundle.digest


def test_the_manifest_is_written_last(bundle: Bundle, bucket: str, s3: Any, tmp_path: Path) -> None:
    """Whatever file can't be put, no manifest tells of a whole bundle."""
    torn = Bundle(tmp_path / bundle.digest, bundle.digest, bundle.manifest)
    shutil.copytree(bundle.path, torn.path)
    last = list(bundle.manifest.files)[-1]
    (torn.path / last).unlink()
    with pytest.raises(OutputError, match=rf"cannot write s3://{bucket}/{bundle.digest}"):
        store.publish(torn, f"s3://{bucket}")
    written = {key.rpartition("/")[2] for key in keys(s3, bucket)}
    assert written
    assert MANIFEST not in written


@pytest.mark.parametrize("name", [MANIFEST, "adapter_model.safetensors"])
def test_other_bytes_under_the_digest_are_not_overwritten(
    bundle: Bundle, bucket: str, s3: Any, name: str
) -> None:
    key = f"{bundle.digest}/{name}"
    s3.put_object(Bucket=bucket, Key=key, Body=b"somebody else's")
    with pytest.raises(OutputError, match=f"{name} holds other bytes"):
        store.publish(bundle, f"s3://{bucket}")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"somebody else's"


def test_a_file_too_many_is_named(bundle: Bundle, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key=f"{bundle.digest}/base/extra.bin", Body=b"x")
    with pytest.raises(OutputError, match=r"base/extra.bin is no part of the bundle; remove it"):
        store.publish(bundle, f"s3://{bucket}")


def test_bytes_changed_in_the_store_are_refused(
    bundle: Bundle, bucket: str, s3: Any, tmp_path: Path
) -> None:
    address = store.publish(bundle, f"s3://{bucket}")
    s3.put_object(Bucket=bucket, Key=f"{bundle.digest}/adapter_config.json", Body=b"{}")
    with pytest.raises(BundleError, match=r"adapter_config.json was changed"):
        store.fetch(address, tmp_path)


def test_no_name_leads_out_of_the_directory(
    bundle: Bundle, bucket: str, s3: Any, tmp_path: Path
) -> None:
    address = store.publish(bundle, f"s3://{bucket}")
    s3.put_object(Bucket=bucket, Key=f"{bundle.digest}/../../astray", Body=b"x")
    with pytest.raises(BundleError, match=r"astray is no part of a bundle"):
        store.fetch(address, tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("astray"))


def test_an_absent_bundle_and_an_absent_bucket_are_one_line(
    bundle: Bundle, bucket: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="no bundle is there"):
        store.fetch(f"s3://{bucket}/{'0' * 64}", tmp_path)
    with pytest.raises(OutputError, match=r"deploy.store: cannot read s3://nowhere-at-all/") as e:
        store.publish(bundle, "s3://nowhere-at-all")
    assert "\n" not in str(e.value)
