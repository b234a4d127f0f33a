"""Provenance of a bundle: `provenance.json`, an in-toto Statement with SLSA provenance.

It follows from bundle.json: what the bundle was built from, and by which run. Digests of artifacts
are those that their steps recorded.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from grocer import __version__
from grocer.artifacts.base import Digest, Record
from grocer.artifacts.step import record_of
from grocer.io.atomic import file_digest, json_bytes, read_json, tree_digest

if TYPE_CHECKING:
    from grocer.release.manifest import Manifest

PROVENANCE = "provenance.json"
_PACKAGE = Path(__file__).parents[1]
_STATEMENT, _PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"


class Build(Record):
    """The run that made a bundle; None where it is not known."""

    version: str
    """Version of Grocer in the step that wrote the bundle."""
    commit: str | None
    """Commit of Grocer, with `-dirty` if there were uncommitted changes."""
    lock: Digest | None
    """SHA-256 of requirements.lock."""
    platform: Literal["kubeflow", "local"]
    run: str | None
    """Id of the run."""
    started: str
    """UTC time at which ingest started."""
    finished: str
    """UTC time at which the gate had decided."""
    data: Digest | None
    """Digest of the tables that ingest wrote."""
    images: dict[str, str]
    """Image of each step, on a cluster."""


def build_of(artifacts: Mapping[str, Path]) -> Build:
    """Return the run that wrote the artifacts `model`, `splits`, `evaluation` and `decision`."""
    records = {name: record_of(path) for name, path in artifacts.items()}
    decision = records["decision"]
    images = {record["step"]: record["image"] for record in records.values() if record["image"]}
    return Build(
        version=__version__,
        **_source(),
        platform="kubeflow" if "KUBERNETES_SERVICE_HOST" in os.environ else "local",
        run=decision["run"],
        started=min(record["run_started"] for record in records.values()),
        finished=decision["finished"],
        data=records["splits"]["inputs"].get("tables"),
        images=dict(sorted(images.items())),
    )


def statement(manifest: Manifest, files: Mapping[str, str]) -> bytes:
    """Return the content of provenance.json.

    Args:
        files: SHA-256 of each file of the model, which are the statement's subject.
    """
    build, decision = manifest.build, json_bytes(manifest.decision.model_dump())
    return json_bytes(
        {
            "_type": _STATEMENT,
            "subject": [_resource(name, digest) for name, digest in sorted(files.items())],
            "predicateType": _PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": "urn:grocer:training-pipeline:v1",
                    "externalParameters": {
                        "recipe": manifest.config.recipe,
                        "configuration": {"sha256": manifest.config.digest},
                    },
                    "resolvedDependencies": list(_dependencies(manifest)),
                },
                "runDetails": {
                    "builder": {
                        "id": f"urn:grocer:{build.platform}",
                        "version": {"grocer": build.version, "commit": build.commit or "unknown"},
                    },
                    "metadata": {
                        "invocationId": build.run or "unknown",
                        "startedOn": build.started,
                        "finishedOn": build.finished,
                    },
                    "byproducts": [
                        _resource("adapter", tree_digest(manifest.artifacts.model)),
                        _resource("evaluation", tree_digest(manifest.artifacts.evaluation)),
                        _resource("decision", sha256(decision).hexdigest()),
                    ],
                },
            },
        }
    )


def _dependencies(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the data, the splits, the base, the lock file and the images, as far as known."""
    build, base = manifest.build, manifest.base
    dependencies = [_resource("splits", manifest.evaluation.digests.splits)]
    if build.data:
        dependencies.insert(0, _resource("data", build.data))
    if base is not None:
        dependencies.append(_resource("base", base["digest"], base["source"]))
    if build.lock:
        dependencies.append(_resource("requirements.lock", build.lock))
    for step, image in build.images.items():
        _, _, digest = image.partition("@sha256:")
        dependencies.append(_resource(f"image of {step}", digest or None, image))
    return dependencies


def _resource(name: str, digest: str | None, uri: str | None = None) -> dict[str, Any]:
    """Return a resource descriptor of in-toto."""
    resource: dict[str, Any] = {"name": name}
    if uri:
        resource["uri"] = uri
    if digest:
        resource["digest"] = {"sha256": digest}
    return resource


def _source() -> dict[str, str | None]:
    """Return `commit` and `lock` of this installation, from its image or its checkout."""
    recorded = _PACKAGE / "build.json"
    if recorded.is_file():
        content = read_json(recorded)
        return {name: content[name] or None for name in ("commit", "lock")}
    checkout = _PACKAGE.parent
    if not (checkout / ".git").exists():
        return {"commit": None, "lock": None}
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=True, timeout=10
        )
        commit = done.stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or a checkout of another user
        commit = None
    lock = checkout / "requirements.lock"
    return {"commit": commit, "lock": file_digest(lock) if lock.is_file() else None}
