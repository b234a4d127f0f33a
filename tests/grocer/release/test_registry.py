"""The registry on an S3 server: bundles are complete, verified and immutable."""

import json
import shutil
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from grocer.errors import BundleError, OutputError
from grocer.io.atomic import read_json, tree_digest, tree_digests
from grocer.io.storage import MAX_DOCUMENT_BYTES, Storage
from grocer.release import registry
from grocer.release.bundle import LoadedBundle, load_bundle
from grocer.release.manifest import MANIFEST
from grocer.release.signature import MAX_SIGNATURE_BYTES, SIGNATURE
from grocer.release.trust import VARIABLE, Trust
from tests.fixtures.signing_keys import make_key, sign_bundle


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"bundles-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def uri(bundle: LoadedBundle, bucket: str) -> str:
    """The address of the published bundle."""
    return registry.publish(bundle, f"s3://{bucket}")


def keys(s3: Any, bucket: str) -> list[str]:
    """The key of each object version."""
    versions = s3.list_object_versions(Bucket=bucket).get("Versions", [])
    return [version["Key"] for version in versions]


def test_fetched_bundle_is_identical(bundle: LoadedBundle, bucket: str, tmp_path: Path) -> None:
    uri = registry.publish(bundle, f"s3://{bucket}/models/")
    assert uri == f"s3://{bucket}/models/{bundle.digest}"
    fetched = registry.open_bundle(uri, tmp_path)
    assert fetched.path == tmp_path / bundle.digest
    assert tree_digests(fetched.path) == tree_digests(bundle.path)
    assert registry.open_bundle(str(bundle.path), tmp_path).path == bundle.path


def test_publishing_again_writes_nothing(bundle: LoadedBundle, bucket: str, s3: Any) -> None:
    for _ in range(2):
        registry.publish(bundle, f"s3://{bucket}")
    written = sorted(f"{bundle.digest}/{name}" for name in tree_digests(bundle.path))
    assert sorted(keys(s3, bucket)) == written


def test_incomplete_bundle_is_rejected_and_completed_by_publishing_again(
    bundle: LoadedBundle, bucket: str, s3: Any, uri: str, tmp_path: Path
) -> None:
    """A killed run leaves some files; the manifest is always the last."""
    for name in (MANIFEST, "MODEL_CARD.md"):
        s3.delete_object(Bucket=bucket, Key=f"{bundle.digest}/{name}")
    with pytest.raises(BundleError, match="no bundle found, or an incomplete one"):
        registry.open_bundle(uri, tmp_path / "part")
    assert registry.publish(bundle, f"s3://{bucket}") == uri
    assert registry.open_bundle(uri, tmp_path / "whole").digest == bundle.digest


def test_manifest_is_uploaded_last(
    bundle: LoadedBundle, bucket: str, s3: Any, tmp_path: Path
) -> None:
    """If any file cannot be uploaded, there is no manifest."""
    incomplete = LoadedBundle(tmp_path / bundle.digest, bundle.digest, bundle.manifest)
    shutil.copytree(bundle.path, incomplete.path)
    last = list(bundle.manifest.files)[-1]
    (incomplete.path / last).unlink()
    with pytest.raises(OutputError, match=rf"cannot write s3://{bucket}/{bundle.digest}"):
        registry.publish(incomplete, f"s3://{bucket}")
    written = {key.rpartition("/")[2] for key in keys(s3, bucket)}
    assert written
    assert MANIFEST not in written


@pytest.mark.parametrize("name", [MANIFEST, "adapter_model.safetensors"])
def test_other_content_under_the_digest_is_not_overwritten(
    bundle: LoadedBundle, bucket: str, s3: Any, name: str
) -> None:
    key = f"{bundle.digest}/{name}"
    s3.put_object(Bucket=bucket, Key=key, Body=b"somebody else's")
    with pytest.raises(OutputError, match=f"{name} already exists with another SHA-256"):
        registry.publish(bundle, f"s3://{bucket}")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"somebody else's"


def test_extra_file_is_named(bundle: LoadedBundle, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key=f"{bundle.digest}/base/extra.bin", Body=b"x")
    with pytest.raises(OutputError, match=r"base/extra.bin is not part of the bundle; remove it"):
        registry.publish(bundle, f"s3://{bucket}")


def test_file_changed_in_the_store_is_rejected(
    bundle: LoadedBundle, bucket: str, s3: Any, uri: str, tmp_path: Path
) -> None:
    s3.put_object(Bucket=bucket, Key=f"{bundle.digest}/adapter_config.json", Body=b"{}")
    with pytest.raises(BundleError, match=r"adapter_config.json has 2 bytes instead of "):
        registry.open_bundle(uri, tmp_path)


def test_only_listed_files_are_read(
    bundle: LoadedBundle,
    bucket: str,
    s3: Any,
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside = tmp_path / "outside"
    hostile = [f"/{outside}", f"//{outside}", "../../outside", "a/../../../outside", "adapter/x"]
    hostile += [f"labels.json/{number}" for number in range(300)]
    for key in hostile:
        s3.put_object(Bucket=bucket, Key=f"{bundle.digest}/{key}", Body=b"x")
    read: list[str] = []
    get = Storage.get
    monkeypatch.setattr(
        Storage, "get", lambda self, local, name="": (read.append(name), get(self, local, name))
    )
    fetched = registry.open_bundle(uri, tmp_path / "a" / "b")
    assert tree_digests(fetched.path) == tree_digests(bundle.path)
    assert sorted(read) == sorted(bundle.manifest.files)
    assert not outside.exists()


@pytest.mark.parametrize(
    "name",
    ["/{0}/outside", "//{0}/outside", "../outside", "a/../../outside", "labels.json/x", "a\0b", ""],
)
def test_listed_name_outside_the_bundle_is_rejected(
    bundle: LoadedBundle, bucket: str, s3: Any, tmp_path: Path, name: str
) -> None:
    """The list was forged with its digest."""
    name = name.format(tmp_path)
    manifest = read_json(bundle.path / MANIFEST)
    manifest["files"][name], manifest["sizes"][name] = sha256(b"x").hexdigest(), 1
    text = json.dumps(manifest).encode()
    digest = tree_digest({**manifest["files"], MANIFEST: sha256(text).hexdigest()})
    files = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    for key, body in {**files, name: b"x", MANIFEST: text}.items():
        s3.put_object(Bucket=bucket, Key=f"{digest}/{key}".rstrip("\0"), Body=body)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BundleError, match="is not a valid file name"):
        registry.open_bundle(f"s3://{bucket}/{digest}", tmp_path / "bundles")
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "bundles") == before


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        (MANIFEST, MAX_DOCUMENT_BYTES),
        ("adapter_model.safetensors", MAX_DOCUMENT_BYTES),
        (SIGNATURE, MAX_SIGNATURE_BYTES),
    ],
)
def test_huge_file_is_not_read(
    bundle: LoadedBundle,
    bucket: str,
    s3: Any,
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    limit: int,
) -> None:
    s3.put_object(Bucket=bucket, Key=f"{bundle.digest}/{name}", Body=bytes(limit + 1))
    received: list[int] = []
    get = Storage.get

    def measured(self: Storage, local: Path, name: str = "") -> None:
        get(self, local, name)
        received.append(local.stat().st_size)

    monkeypatch.setattr(Storage, "get", measured)
    with pytest.raises(BundleError, match=rf"{name} has [\d,]+ bytes"):
        registry.open_bundle(uri, tmp_path)
    assert sum(received) < 10**6


def test_signature_is_published_replaced_and_fetched(
    bundle: LoadedBundle, bucket: str, s3: Any, tmp_path: Path
) -> None:
    """Only the signature of a published bundle may change: a new key does not make a new bundle."""
    signed = load_bundle(Path(shutil.copytree(bundle.path, tmp_path / "one" / bundle.digest)))
    for name in ("old", "new"):
        private, public = make_key(tmp_path / "keys", name)
        sign_bundle(signed.path, private)
        uri = registry.publish(signed, f"s3://{bucket}")
        fetched = registry.open_bundle(uri, tmp_path / name)
        assert load_bundle(fetched.path, trust=Trust.read(public)).signer is not None
    registry.publish(bundle, f"s3://{bucket}")  # without a signature
    assert registry.open_bundle(uri, tmp_path / "kept").path.joinpath(SIGNATURE).is_file()


def test_bundle_that_a_step_opens_needs_a_trusted_signature(
    bundle: LoadedBundle, bucket: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the champion of a run, or to classify a shard."""
    private, public = make_key(tmp_path / "keys")
    monkeypatch.setenv(VARIABLE, str(public))
    with pytest.raises(BundleError, match="is not signed"):
        registry.open_bundle(uri, tmp_path / "unsigned")
    copy = Path(shutil.copytree(bundle.path, tmp_path / "signed" / bundle.digest))
    sign_bundle(copy, private)
    registry.publish(load_bundle(copy), f"s3://{bucket}")
    assert registry.open_bundle(uri, tmp_path / "fetched").signer is not None


def test_missing_bundle_and_missing_bucket_are_reported_in_one_line(
    bundle: LoadedBundle, bucket: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="no bundle found"):
        registry.open_bundle(f"s3://{bucket}/{'0' * 64}", tmp_path)
    with pytest.raises(BundleError, match=r"champion s3://nowhere-at-all/0+: no bundle"):
        registry.open_bundle(f"s3://nowhere-at-all/{'0' * 64}", tmp_path, setting="champion")
    with pytest.raises(BundleError, match="champion s3://nowhere-at-all/bundle: expected"):
        registry.open_bundle("s3://nowhere-at-all/bundle", tmp_path, setting="champion")
    with pytest.raises(OutputError, match=r"deploy.store: cannot read s3://nowhere-at-all/") as e:
        registry.publish(bundle, "s3://nowhere-at-all")
    assert "\n" not in str(e.value)
