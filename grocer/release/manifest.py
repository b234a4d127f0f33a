"""The content of bundle.json, and how it follows from the artifacts that the gate judged."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from grocer.artifacts.base import Artifact, Count, Digest, Labels, Record
from grocer.artifacts.combination import Combination
from grocer.artifacts.decision import Decision
from grocer.artifacts.evaluation import Evaluation
from grocer.config.run import RunConfig
from grocer.errors import ArtifactError, BundleError
from grocer.gate.rules import decide
from grocer.io.atomic import json_bytes, json_digest, tree_digest
from grocer.model.hierarchy import AISLES_FILE
from grocer.model.linear.classifier import FILE as LINEAR
from grocer.release.provenance import PROVENANCE, Build, statement
from grocer.reports.html import render

MANIFEST, CARD = "bundle.json", "MODEL_CARD.md"
JUDGED = "judged.json"
"""File of evaluate with the `judged_digests`."""
KNOWN = "known_products.npy"
"""File of evaluate, and of a bundle: hashes of the products in the catalogue of the run."""
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_TOKENIZER = (
    "added_tokens.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
)
_BASE, _TEMPLATE, _LABELS = "base.json", "template.json", "labels.json"
_REQUIRED = (*_ADAPTER, _BASE, _TEMPLATE, _LABELS, LINEAR, KNOWN)
"""Files of the models that the strategy uses; the others are optional."""


class JudgedFiles(Record):
    """SHA-256 of each file of the artifacts that the gate evaluated."""

    model: dict[str, Digest]
    evaluation: dict[str, Digest]


class Manifest(Artifact):
    """`bundle.json`."""

    FILE: ClassVar = MANIFEST
    OTHER_VERSION: ClassVar = "serve it with the version that wrote it, or train again"
    schema_version: int = Field(default=8, alias="schema")
    base: dict[str, Any] | None
    """None without an adapter."""
    labels: Labels
    aisles: dict[str, tuple[str, ...]]
    """Aisles of each label; empty with one level of labels."""
    template: dict[str, Any] | None
    """None without an adapter."""
    combination: Combination
    """The strategy and the weights of the classifier."""
    build: Build
    """The run that made the bundle."""
    config: RunConfig
    evaluation: Evaluation
    """Without `confident_errors`: a bundle holds no product names."""
    decision: Decision
    artifacts: JudgedFiles
    files: dict[str, Digest]
    """SHA-256 of each file except bundle.json."""
    sizes: dict[str, Count]
    """Size of each of the files in bytes."""

    @model_validator(mode="after")
    def _has_every_size(self) -> Self:
        if differing := set(self.files) ^ set(self.sizes):
            raise ValueError(f"files and sizes differ: {', '.join(sorted(differing))}")
        return self


def parse_manifest(text: bytes, digest: str, source: str) -> Manifest:
    """Return the content of the bundle.json of the bundle with this digest.

    Args:
        source: path or address of the bundle, for error messages.

    Raises:
        BundleError: invalid, of another schema version, or of another bundle.
    """
    try:
        manifest = Manifest.parse(text, f"{source}/{MANIFEST}")
    except ArtifactError as error:
        raise BundleError(str(error)) from error
    actual = tree_digest({**manifest.files, MANIFEST: sha256(text).hexdigest()})
    if actual != digest:
        raise BundleError(
            f"{source} was modified: {MANIFEST} is that of {actual[:12]}, not {digest[:12]}; "
            "download it again"
        )
    return manifest


def judged_digests(evaluation: Evaluation, config: RunConfig) -> dict[str, str]:
    """Return what evaluate records of itself, so that a bundle can prove its content."""
    content = evaluation.public.model_dump(mode="json")
    return {"evaluation": json_digest(content), "config": config.digest}


def origins_of(judged: JudgedFiles, combination: Combination) -> dict[str, tuple[str, str]]:
    """Return the artifact, and the path in it, of each file of the classifier.

    Raises:
        BundleError: an artifact lacks a file.
    """
    origins = {_LABELS: ("model", _LABELS), KNOWN: ("evaluation", KNOWN)}
    if combination.uses_adapter:
        # The files of the adapter's directory are at the top level of a bundle.
        origins |= {name: ("model", f"adapter/{name}") for name in (*_ADAPTER, *_TOKENIZER)}
        names = [_BASE, _TEMPLATE, AISLES_FILE]
        names += [name for name in judged.model if name.startswith("base/")]
        origins |= {name: ("model", name) for name in names}
    if combination.uses_linear:
        origins[LINEAR] = ("evaluation", LINEAR)
    present = {"model": judged.model, "evaluation": judged.evaluation}
    for name, (artifact, path) in origins.items():
        if name in _REQUIRED and path not in present[artifact]:
            step = "train" if artifact == "model" else "evaluate"
            raise BundleError(f"{path}: file not found; it is an output of {step}")
    return {
        name: (artifact, path)
        for name, (artifact, path) in sorted(origins.items())
        if path in present[artifact]
    }


def derived_fields(
    files: Mapping[str, Path], judged: JudgedFiles, evaluation: Evaluation, config: RunConfig
) -> dict[str, Any]:
    """Return the fields of the manifest that follow from the files and the evaluation.

    Raises:
        BundleError: evaluate did not measure this evaluation with this configuration.
    """
    recorded = sha256(json_bytes(judged_digests(evaluation, config))).hexdigest()
    if judged.evaluation.get(JUDGED) != recorded:
        raise BundleError(
            "evaluation or configuration differs from the digests that evaluate recorded"
        )
    content = {
        name: json.loads(files[name].read_bytes()) if name in files else None
        for name in (_BASE, _TEMPLATE, _LABELS, AISLES_FILE)
    }
    template, aisles = content[_TEMPLATE], content[AISLES_FILE] or {}
    decision = decide(evaluation, config.gate)
    digests = {**decision.digests, "evaluation": tree_digest(judged.evaluation)}
    return {
        "base": content[_BASE],
        "labels": tuple(content[_LABELS] or ()),
        "aisles": {label: tuple(names) for label, names in aisles.items()},
        "template": template and {**template, "digest": json_digest(template)},
        "combination": evaluation.combination,
        "decision": decision.model_copy(update={"digests": digests}),
    }


def described(manifest: Manifest, files: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files that describe the bundle: the card and the provenance.

    Args:
        files: SHA-256 of each other file except bundle.json.
    """
    return {
        CARD: render("model_card.md", bundle=manifest).encode(),
        PROVENANCE: statement(manifest, files),
    }
