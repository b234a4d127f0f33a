"""Bundles for the cluster tests: valid ones, and ones that the predictor must reject."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grocer.config.recipes import tiny
from grocer.io.atomic import tree_digest, tree_digests
from grocer.io.storage import file_system
from grocer.release.manifest import MANIFEST
from tests.cluster.installation import Store
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.signing_keys import sign_bundle

FAILED_RULE = "Test accuracy is too low."


@dataclass(frozen=True)
class Bundles:
    """URIs of uploaded bundles, none of which is published yet."""

    first: str
    second: str
    """Valid as well, with another digest."""
    failed_gate: str
    """Its decision is not "passed"."""
    missing_base: str
    """Its base model is not available in any pod."""
    unsigned: str
    """Valid, but without a signature."""


def digest_of(uri: str) -> str:
    """Return the digest in a bundle's URI."""
    return uri.rpartition("/")[2]


def upload_bundles(store: Store, root: Path, base: Path, signing_key: Path) -> Bundles:
    """Create the bundles below `root`, sign them and upload them."""
    config = tiny().with_settings(["serving.max_items=512"])
    paths = {
        "first": make_bundle(root / "first", base=base).path,
        "second": make_bundle(root / "second", config, base=base).path,
        "missing_base": make_bundle(root / "missing_base").path,
        "unsigned": make_bundle(root / "unsigned", base=base).path,
    }
    paths["failed_gate"] = _with_failed_decision(paths["first"], root / "failed_gate")
    return Bundles(**_upload(store, paths, signing_key))


def upload_candidates(
    store: Store, root: Path, base: Path, signing_key: Path, names: Sequence[str]
) -> dict[str, str]:
    """Create, sign and upload valid bundles with different digests; return their URIs by name."""
    paths = {}
    for number, name in enumerate(names, 3):
        config = tiny().with_settings([f"serving.max_items={number * 10}"])
        paths[name] = make_bundle(root / name, config, base=base).path
    return _upload(store, paths, signing_key)


def _upload(store: Store, paths: Mapping[str, Path], signing_key: Path) -> dict[str, str]:
    """Sign and upload bundles outside the prefix where deploy publishes them; return their URIs."""
    uris = {name: f"{store.uri}/incoming/{path.name}" for name, path in paths.items()}
    for name, path in paths.items():
        if name != "unsigned":
            sign_bundle(path, signing_key)
        target = f"{uris[name].removeprefix('s3://')}/"
        file_system("s3").put(f"{path}/", target, recursive=True)
    return uris


def _with_failed_decision(bundle: Path, root: Path) -> Path:
    """Copy a bundle below `root`, change its decision to failed, and return the new path."""
    copy = root / "copy"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    decision = manifest["decision"]
    decision["passed"] = decision["reasons"][0]["passed"] = False
    decision["reasons"][0]["sentence"] = FAILED_RULE
    (copy / MANIFEST).write_text(json.dumps(manifest))
    return copy.rename(root / tree_digest(tree_digests(copy)))
