"""Bundles: the files that serving needs, and the evaluation and decision that permit serving.

    root/<digest>/  labels.json  [aisles.json]  bundle.json  MODEL_CARD.md
                    adapter_model.safetensors  adapter_config.json  tokenizer files
                    base.json  [base/]  template.json
                    linear.npz

A bundle holds the classifier that the gate judged: without `linear.npz` if its strategy is
`adapter`, without the adapter, its tokenizer, base and template if it is `linear`.

`bundle.json` records the origin of the files and the SHA-256 of every other file. The directory
is named by the digest of all files, including `bundle.json`, so any change is detected. Bundles
are immutable: another classifier is another bundle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from grocer.artifacts.base import Artifact, Digest, Labels, Record
from grocer.artifacts.bundle import Bundle
from grocer.artifacts.combination import Combination
from grocer.artifacts.decision import Decision
from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.step import record_of
from grocer.config.run import RunConfig
from grocer.errors import ArtifactError, BundleError
from grocer.io.atomic import (
    file_digest,
    json_digest,
    output_directory,
    read_json,
    tree_digest,
    tree_digests,
)
from grocer.model.hierarchy import AISLES_FILE, Leaf, leaves, read_aisles
from grocer.model.linear import FILE as LINEAR
from grocer.reports.html import render

MANIFEST, CARD = "bundle.json", "MODEL_CARD.md"
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_TOKENIZER = (
    "added_tokens.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
)
_ORIGIN = ("base.json", "template.json")
_LABELS = "labels.json"
_OPTIONAL = (AISLES_FILE,)
"""Present if the label has two levels."""


class JudgedFiles(Record):
    """SHA-256 of each file of the artifacts that the gate evaluated."""

    model: dict[str, Digest]
    evaluation: dict[str, Digest]


class Manifest(Artifact):
    """`bundle.json`."""

    FILE: ClassVar = MANIFEST
    OTHER_VERSION: ClassVar = "serve it with the version that wrote it, or train again"
    schema_version: int = Field(default=3, alias="schema")
    base: dict[str, Any] | None
    """None without an adapter."""
    labels: Labels
    aisles: dict[str, tuple[str, ...]]
    """Aisles of each label; empty with one level of labels."""
    template: dict[str, Any] | None
    """None without an adapter."""
    combination: Combination
    """The strategy and the weights of the classifier."""
    config: RunConfig
    data: dict[str, Any]
    """Digests of the splits and of their inputs."""
    evaluation: Evaluation
    """Without `confident_errors`: a bundle holds no product names."""
    decision: Decision
    artifacts: JudgedFiles
    files: dict[str, Digest]


@dataclass(frozen=True)
class LoadedBundle:
    """A verified bundle."""

    path: Path
    digest: str
    manifest: Manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """The label set, in the order of a classifier's columns."""
        return self.manifest.labels

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The aisles of all labels, in the order of a classifier's columns, or empty."""
        return leaves(self.labels, self.manifest.aisles)

    @property
    def reference(self) -> Bundle:
        """Its path and digest."""
        return Bundle(uri=str(self.path), digest=self.digest)

    @property
    def config(self) -> RunConfig:
        """The configuration of the run that wrote it."""
        return self.manifest.config


def write_bundle(
    model: Path, splits: Path, evaluation: Path, decision: Path, config: RunConfig, root: Path
) -> LoadedBundle:
    """Write the bundle of the classifier that was judged to `root/<digest>/`; idempotent.

    Args:
        model, splits, evaluation, decision: artifacts of train, build_dataset, evaluate and gate.
        root: directory that holds bundles.

    Raises:
        BundleError: the gate failed, or judged another adapter, other data or another evaluation;
            or an artifact lacks a file.
        ArtifactError: the evaluation or the decision is invalid.
        OutputError: `root` cannot be written.
    """
    artifacts = {"model": model, "splits": splits, "evaluation": evaluation}
    records = {name: record_of(path) for name, path in artifacts.items()}
    digests = {name: str(record["digest"]) for name, record in records.items()}
    judged, measured = Decision.read(decision), Evaluation.read(evaluation)
    judged.require_passed(digests)
    _require_measured(measured, digests)

    combination = measured.combination
    sources = _sources(model, evaluation, combination)
    origin = {
        name: read_json(model / f"{name}.json") if combination.uses_adapter else None
        for name in ("base", "template")
    }
    template = origin["template"]
    manifest = Manifest(
        base=origin["base"],
        labels=tuple(read_json(model / _LABELS)),
        aisles={label: tuple(aisles) for label, aisles in read_aisles(model).items()},
        template=template and {**template, "digest": json_digest(template)},
        combination=combination,
        config=config,
        data={"splits": digests["splits"], "inputs": records["splits"]["inputs"]},
        evaluation=measured.model_copy(update={"confident_errors": ()}),
        decision=judged,
        artifacts=JudgedFiles(
            model=records["model"]["files"], evaluation=records["evaluation"]["files"]
        ),
        files={name: file_digest(path) for name, path in sources.items()},
    )
    card = render("model_card.md", bundle=manifest).encode()
    files = {**manifest.files, CARD: sha256(card).hexdigest()}
    content = manifest.model_copy(update={"files": files}).model_dump(mode="json")
    text = (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    digest = tree_digest({**files, MANIFEST: sha256(text).hexdigest()})
    if not (root / digest).is_dir():
        with output_directory(root / digest) as part:
            for name, source in sources.items():
                (part / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source, part / name)
            (part / CARD).write_bytes(card)
            (part / MANIFEST).write_bytes(text)
    return load_bundle(root / digest)


def load_bundle(path: Path, digest: str | None = None) -> LoadedBundle:
    """Return the bundle in `path` after verifying every file and the decision.

    Args:
        path: the bundle's directory.
        digest: the expected digest; by default the directory's name. Required where a storage
            initializer unpacks the bundle to a fixed path.

    Raises:
        BundleError: the directory is not a bundle, has another schema version or was modified, or
            its decision failed or is about another adapter.
    """
    if not (path / MANIFEST).is_file():
        raise BundleError(
            f"{path} is not a bundle: no {MANIFEST}; expected a directory <root>/<digest>"
        )
    expected = digest or path.resolve().name
    if len(expected) != 64:
        raise BundleError(
            f"{path}: a bundle's directory is named by its digest, 64 hexadecimal digits; "
            "if it was copied to another name, give the digest too"
        )
    try:
        manifest = Manifest.parse((path / MANIFEST).read_bytes(), str(path / MANIFEST))
    except ArtifactError as error:
        raise BundleError(str(error)) from error
    digests = tree_digests(path)
    _require_unmodified(path, manifest.files, digests)
    if tree_digest(digests) != expected:
        raise BundleError(
            f"{path} was modified: its digest is {tree_digest(digests)[:12]}, not {expected[:12]}; "
            "download it again"
        )
    judged = manifest.artifacts
    manifest.decision.require_passed(
        {"model": tree_digest(judged.model), "evaluation": tree_digest(judged.evaluation)}
    )
    if manifest.combination != manifest.evaluation.combination:
        raise BundleError(f"{path}: combination is not the one that was evaluated")
    for name in (_LABELS, *_OPTIONAL, *_ADAPTER, *_ORIGIN, LINEAR):
        if manifest.files.get(name) != _judged_digest(name, judged, manifest.combination):
            raise BundleError(f"{path}: {name} is not the file that was evaluated")
    return LoadedBundle(path, expected, manifest)


def _sources(model: Path, evaluation: Path, combination: Combination) -> dict[str, Path]:
    """The source of each file of the bundle, by its name in the bundle."""
    sources = {_LABELS: model / _LABELS}
    required = [_LABELS]
    if combination.uses_adapter:
        sources |= {name: model / name for name in (*_ORIGIN, *_OPTIONAL)}
        sources |= {name: model / "adapter" / name for name in (*_ADAPTER, *_TOKENIZER)}
        sources |= {f"base/{path.name}": path for path in (model / "base").glob("*")}
        required += [*_ADAPTER, *_ORIGIN]
    if combination.uses_linear:
        sources[LINEAR] = evaluation / LINEAR
        required.append(LINEAR)
    for name in required:
        if not sources[name].is_file():
            step = "evaluate" if name == LINEAR else "train"
            raise BundleError(f"{sources[name]}: file not found; it is an output of {step}")
    return {name: path for name, path in sorted(sources.items()) if path.is_file()}


def _judged_digest(name: str, judged: JudgedFiles, combination: Combination) -> str | None:
    """The digest of the file that was evaluated; None if the classifier does not use it."""
    if name == LINEAR:
        return judged.evaluation.get(name) if combination.uses_linear else None
    if name != _LABELS and not combination.uses_adapter:
        return None
    # The files of the adapter's directory are at the top level of a bundle.
    return judged.model.get(name, judged.model.get(f"adapter/{name}"))


def _require_measured(evaluation: Evaluation, digests: Mapping[str, str]) -> None:
    for name, measured in evaluation.digests:
        if measured != digests[name]:
            raise BundleError(
                f"the evaluation is about another {name}: its digest is {measured[:12]}, "
                f"this one's is {digests[name][:12]}"
            )


def _require_unmodified(path: Path, expected: Mapping[str, str], actual: Mapping[str, str]) -> None:
    """Raise `BundleError` about the first file that was changed, removed or added."""
    for name, digest in expected.items():
        if name not in actual:
            raise BundleError(f"{path} was modified: {name} is missing; download it again")
        if actual[name] != digest:
            raise BundleError(f"{path} was modified: {name} was changed; download it again")
    if extra := sorted(set(actual) - set(expected) - {MANIFEST}):
        raise BundleError(f"{path} was modified: {extra[0]} was added; remove it")
