"""Bundles that a cluster is to serve or to refuse, made in seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from grocer.config.recipes import tiny
from grocer.io import storage as remote
from grocer.io.atomic import tree_digest, tree_digests
from grocer.release.bundle import MANIFEST
from tests.cluster.release import Store
from tests.fixtures.artifacts import make_bundle


@dataclass(frozen=True)
class Bundles:
    """Where each lies in the store; none is published yet."""

    first: str
    second: str
    """As good as the first, and another one."""
    refused: str
    """Whole, but its gate said no."""
    baseless: str
    """Its gate said yes, but of a base that no pod has."""


def digest_of(address: str) -> str:
    """The digest of the bundle at an address."""
    return address.rpartition("/")[2]


def upload(store: Store, root: Path, base: Path) -> Bundles:
    """Make the bundles below `root` and put them into the store."""
    made = {
        "first": make_bundle(root / "first", base=base).path,
        "second": make_bundle(
            root / "second", tiny().with_settings(["serving.top_k=2"]), base=base
        ).path,
        "baseless": make_bundle(root / "baseless").path,
    }
    made["refused"] = _with_a_no(made["first"], root / "refused")
    files = remote.file_system("s3")
    addresses: Mapping[str, str] = {
        name: f"{store.address}/incoming/{path.name}" for name, path in made.items()
    }
    for name, address in addresses.items():
        files.put(f"{made[name]}/", f"{address.removeprefix('s3://')}/", recursive=True)
    return Bundles(**addresses)


def _with_a_no(bundle: Path, root: Path) -> Path:
    """The same bundle with a decision that is no, under the digest that this gives it."""
    shutil.copytree(bundle, root / "part")
    path = root / "part" / MANIFEST
    manifest = json.loads(path.read_text())
    decision = manifest["decision"]
    decision["passed"] = decision["reasons"][0]["passed"] = False
    decision["reasons"][0]["sentence"] = "Test accuracy is too low."
    path.write_text(json.dumps(manifest))
    return (root / "part").rename(root / tree_digest(tree_digests(root / "part")))
