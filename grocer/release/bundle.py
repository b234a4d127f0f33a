"""The bundle: everything that serving needs and may be held to, under the digest that names it.

    root/<digest>/  adapter_model.safetensors  adapter_config.json  tokenizer files
                    base.json  [base/]  labels.json  [aisles.json]  template.json
                  bundle.json  MODEL_CARD.md

`bundle.json` says where the adapter comes from and why it may serve, and holds a SHA-256 for
each other file. The digest is over all files, `bundle.json` among them, and is the directory's
name, so no byte can change unseen. A bundle is never changed: another adapter is another one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grocer.artifacts.step import record_of
from grocer.config.run import RunConfig, explain
from grocer.errors import BundleError
from grocer.gate.rules import check_digests
from grocer.io.atomic import (
    file_digest,
    json_digest,
    output_directory,
    read_json,
    tree_digest,
    tree_digests,
)
from grocer.model.hierarchy import AISLES_FILE, Leaf, leaves, read_aisles

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
_BESIDE = ("base.json", "labels.json", "template.json")
# There where labels have aisles.
_MAY_BESIDE = (AISLES_FILE,)
# Names of products have no place in what is handed around.
_LEFT_OUT = ("confident_errors",)


class Manifest(BaseModel):
    """`bundle.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(default=1, alias="schema")
    base: dict[str, Any]
    labels: tuple[str, ...] = Field(min_length=2)
    aisles: dict[str, tuple[str, ...]] = {}
    """The aisles of each label; empty: labels have one level."""
    template: dict[str, Any]
    calibration: dict[str, float]
    config: RunConfig
    data: dict[str, Any]
    """Digests of the splits that it learnt from and was measured on."""
    evaluation: dict[str, Any]
    decision: dict[str, Any]
    artifacts: dict[str, dict[str, str]]
    """SHA-256 of the files of the artifacts that the decision names: `model`, `evaluation`."""
    files: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every byte was checked."""

    path: Path
    digest: str
    manifest: Manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """The label set, in the order of a scorer's columns."""
        return self.manifest.labels

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The aisles of all labels, in the order of a scorer's columns; none: one level."""
        return leaves(self.labels, self.manifest.aisles)

    @property
    def config(self) -> RunConfig:
        """The configuration of the run that made it."""
        return self.manifest.config


def write_bundle(
    model: Path, splits: Path, evaluation: Path, decision: Path, config: RunConfig, root: Path
) -> Bundle:
    """Make the bundle of what `train` wrote, at `root/<digest>/`; the same again is a no-op.

    Args:
        model, splits, evaluation, decision: artifacts of train, build_dataset, evaluate and gate.
        root: directory that holds bundles.

    Raises:
        BundleError: the decision is no, or is about another adapter, other data or another
            evaluation than these; or the adapter lacks a file.
        OutputError: `root` can't be written.
    """
    artifacts = {"model": model, "splits": splits, "evaluation": evaluation}
    records = {name: record_of(path) for name, path in artifacts.items()}
    digests = {name: str(record["digest"]) for name, record in records.items()}
    verdict, measured = read_json(decision / "decision.json"), _evaluation(evaluation)
    check_digests(verdict, digests)
    _require_measured(measured.get("digests", {}), digests)

    sources = _sources(model)
    template = read_json(model / "template.json")
    manifest = Manifest(
        base=read_json(model / "base.json"),
        labels=read_json(model / "labels.json"),
        aisles={label: tuple(aisles) for label, aisles in read_aisles(model).items()},
        template={**template, "digest": json_digest(template)},
        calibration=_calibration(measured),
        config=config,
        data={"splits": digests["splits"], "inputs": records["splits"]["inputs"]},
        evaluation=measured,
        decision=verdict,
        artifacts={name: records[name]["files"] for name in ("model", "evaluation")},
        files={name: file_digest(path) for name, path in sources.items()},
    )
    card = _card(manifest)
    manifest.files[CARD] = sha256(card).hexdigest()
    text = _text(manifest)
    digest = tree_digest({**manifest.files, MANIFEST: sha256(text).hexdigest()})
    if not (root / digest).is_dir():
        with output_directory(root / digest) as part:
            for name, source in sources.items():
                (part / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source, part / name)
            (part / CARD).write_bytes(card)
            (part / MANIFEST).write_bytes(text)
    return load_bundle(root / digest)


def load_bundle(path: Path, digest: str | None = None) -> Bundle:
    """Check every byte of a bundle and that it may serve.

    Args:
        path: the bundle's directory.
        digest: what its digest must be; by default the directory's name says it. A pod whose
            storage initializer unpacks to a fixed path gives it.

    Raises:
        BundleError: it is no bundle, was touched, or its decision is no or about another adapter.
    """
    if not (path / MANIFEST).is_file():
        raise BundleError(f"{path} is no bundle: it has no {MANIFEST}; give root/<digest>")
    expected = digest or path.resolve().name
    if len(expected) != 64:
        raise BundleError(
            f"{path}: a bundle's directory is named by its digest, 64 hexadecimal digits; "
            "if it was copied elsewhere, give the digest too"
        )
    manifest = _manifest(path / MANIFEST)
    found = tree_digests(path)
    _require_untouched(path, manifest.files, found)
    if tree_digest(found) != expected:
        raise BundleError(
            f"{path} was touched: its digest is {tree_digest(found)[:12]}, not {expected[:12]}; "
            "fetch it again"
        )
    told = {name: tree_digest(files) for name, files in manifest.artifacts.items()}
    check_digests(manifest.decision, {name: told.get(name, "") for name in ("model", "evaluation")})
    trained = manifest.artifacts["model"]
    for name in (*_ADAPTER, *_BESIDE, *_MAY_BESIDE):
        # Adapter files lie flat in a bundle.
        if manifest.files.get(name) != trained.get(name, trained.get(f"adapter/{name}")):
            raise BundleError(f"{path}: {name} is not the one that was evaluated and decided on")
    return Bundle(path, expected, manifest)


def _manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        why = explain(error)[:300]
        raise BundleError(f"{path} is not what this version of Grocer reads: {why}") from error


def _sources(model: Path) -> dict[str, Path]:
    """Where each file of the bundle comes from, by its name in it."""
    adapter = model / "adapter"
    sources = {name: adapter / name for name in (*_ADAPTER, *_TOKENIZER)}
    sources |= {name: model / name for name in (*_BESIDE, *_MAY_BESIDE)}
    base = model / "base"
    sources |= {f"base/{path.name}": path for path in base.glob("*")} if base.is_dir() else {}
    for name in (*_ADAPTER, *_BESIDE):
        if not sources[name].is_file():
            raise BundleError(f"{model} has no {name}; it is not what the train step wrote")
    return {name: path for name, path in sorted(sources.items()) if path.is_file()}


def _evaluation(artifact: Path) -> dict[str, Any]:
    measured: dict[str, Any] = read_json(artifact / "evaluation.json")
    return {name: value for name, value in measured.items() if name not in _LEFT_OUT}


def _calibration(measured: Mapping[str, Any]) -> dict[str, float]:
    """Temperatures, as a scorer takes them."""
    found = {"temperature": measured["calibration"]["temperature"]}
    if aisles := measured.get("aisles"):
        found["aisle_temperature"] = aisles["temperature"]
    return found


def _require_measured(told: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    for name in ("model", "splits"):
        if told.get(name) != digests[name]:
            raise BundleError(
                f"the evaluation is about another {name}: it names {str(told.get(name))[:12]}, "
                f"but this one is {digests[name][:12]}"
            )


def _require_untouched(path: Path, told: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Name the first file that was changed, removed or added."""
    for name, digest in told.items():
        if name not in found:
            raise BundleError(f"{path} was touched: {name} is missing; fetch it again")
        if found[name] != digest:
            raise BundleError(f"{path} was touched: {name} was changed; fetch it again")
    extra = sorted(set(found) - set(told) - {MANIFEST})
    if extra:
        raise BundleError(f"{path} was touched: {extra[0]} was added; remove it or fetch it again")


def _text(manifest: Manifest) -> bytes:
    value = manifest.model_dump(mode="json", by_alias=True)
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _card(manifest: Manifest) -> bytes:
    """The model card, in Markdown with the Hub's front matter."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("grocer.reports"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A department that was never predicted has no precision.
    environment.filters["percent"] = lambda x: "not measured" if x is None else f"{100 * x:.1f} %"
    return environment.get_template("model_card.md").render(bundle=manifest).encode()
