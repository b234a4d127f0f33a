"""Bundles: the files that serving needs, and the evaluation and decision that permit serving.

    root/<digest>/  labels.json  [aisles.json]  bundle.json  MODEL_CARD.md  provenance.json
                    adapter_model.safetensors  adapter_config.json  tokenizer files
                    base.json  [base/]  template.json
                    linear.npz  known_products.npy  [model.sig]

A bundle holds the classifier that the gate judged: without `linear.npz` if its strategy is
`adapter`, without the adapter, its tokenizer, base and template if it is `linear`. `model.sig` is
the signature, if there is one: it is about all other files, so it is not part of the digest.

`bundle.json` records the SHA-256 of every other file, and of every file of the artifacts that were
judged. The directory is named by the digest of all files, including `bundle.json`, so any change is
detected. What `bundle.json` says is derived from those artifacts, when it is written and again when
it is read: every file is that of an artifact, the evaluation and the configuration are those that
evaluate recorded, and the decision is that of the gate. Bundles are immutable: another classifier
is another bundle.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from grocer.artifacts.decision import Decision
from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.step import verified_files
from grocer.config.run import RunConfig
from grocer.errors import ArtifactError, BundleError
from grocer.io.atomic import file_digest, json_bytes, output_directory, tree_digest, tree_files
from grocer.io.storage import MAX_DOCUMENT_BYTES
from grocer.model.hierarchy import Leaf, leaves
from grocer.release.manifest import (
    CARD,
    MANIFEST,
    JudgedFiles,
    Manifest,
    derived_fields,
    described,
    origins_of,
    parse_manifest,
)
from grocer.release.provenance import PROVENANCE, build_of
from grocer.release.signature import SIGNATURE, sign
from grocer.release.trust import Trust

FileVersion = tuple[int, int, int, int]
"""Inode, size, and times of the last change of content and of inode."""


@dataclass(frozen=True)
class LoadedBundle:
    """A verified bundle."""

    path: Path
    digest: str
    manifest: Manifest
    signer: str | None = None
    """Description of the trusted signer; None if no signer is trusted, or all are."""
    versions: Mapping[str, FileVersion] = field(default_factory=dict)
    """The version of each file that was verified."""

    def require_unchanged(self) -> None:
        """Raise `BundleError` if a file was changed since the bundle was verified."""
        if _versions(_bundle_files(self.path)) != self.versions:
            raise BundleError(f"{self.path} was modified while it was loaded; load it again")

    @property
    def labels(self) -> tuple[str, ...]:
        """The label set, in the order of a classifier's columns."""
        return self.manifest.labels

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The aisles of all labels, in the order of a classifier's columns, or empty."""
        return leaves(self.labels, self.manifest.aisles)


def write_bundle(
    model: Path,
    splits: Path,
    evaluation: Path,
    decision: Path,
    config: RunConfig,
    root: Path,
    signing_key: str | None = None,
) -> LoadedBundle:
    """Write the bundle of the classifier that was judged to `root/<digest>/`; idempotent.

    Args:
        model, splits, evaluation, decision: artifacts of train, build_dataset, evaluate and gate.
        root: directory that holds bundles.
        signing_key: as in `deploy.signing_key`; None: without a signature.

    Raises:
        ConfigError: the signing key cannot be used.
        BundleError: the gate failed, or judged another adapter, other data or another evaluation;
            or an artifact lacks a file.
        ArtifactError: the evaluation or the decision is invalid.
        OutputError: `root` cannot be written.
    """
    artifacts = {"model": model, "splits": splits, "evaluation": evaluation}
    verified = {name: verified_files(path) for name, path in artifacts.items()}
    decided, measured = Decision.read(decision), Evaluation.read(evaluation)
    decided.require_passed({name: tree_digest(files) for name, files in verified.items()})
    judged = JudgedFiles(model=verified["model"], evaluation=verified["evaluation"])
    origins = origins_of(judged, measured.combination)
    sources = {name: artifacts[origin] / path for name, (origin, path) in origins.items()}
    manifest = Manifest(
        **derived_fields(sources, judged, measured, config),
        build=build_of({**artifacts, "decision": decision}),
        config=config,
        evaluation=measured.public,
        artifacts=judged,
        files={name: file_digest(path) for name, path in sources.items()},
        sizes={name: path.stat().st_size for name, path in sources.items()},
    )
    if decided.model_dump() != manifest.decision.model_dump():
        raise BundleError("the decision is not that of the gate's rules; run the gate again")
    texts = described(manifest, manifest.files)
    files = {**manifest.files, **{name: sha256(each).hexdigest() for name, each in texts.items()}}
    sizes = {**manifest.sizes, **{name: len(each) for name, each in texts.items()}}
    text = json_bytes(
        manifest.model_copy(update={"files": files, "sizes": sizes}).model_dump(mode="json")
    )
    digest = tree_digest({**files, MANIFEST: sha256(text).hexdigest()})
    if not (root / digest).is_dir():
        with output_directory(root / digest) as part:
            for name, source in sources.items():
                (part / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source, part / name)
            for name, content in {**texts, MANIFEST: text}.items():
                (part / name).write_bytes(content)
    if signing_key is not None:
        sign(root / digest, {**files, MANIFEST: sha256(text).hexdigest()}, signing_key)
    return load_bundle(root / digest)


def load_bundle(path: Path, digest: str | None = None, trust: Trust | None = None) -> LoadedBundle:
    """Return the bundle in `path` after verifying every file, the signature and the decision.

    Args:
        path: the bundle's directory.
        digest: the expected digest; by default the directory's name. Required where a storage
            initializer unpacks the bundle to a fixed path.
        trust: signers and gate policy that are required; by default those of the platform.

    Raises:
        BundleError: the directory is not a bundle, has another schema version or was modified,
            its decision failed or is about another adapter, or it is not what `trust` requires.
        ConfigError: the platform's trust is invalid.
    """
    trust = Trust.of_platform() if trust is None else trust
    if not (path / MANIFEST).is_file():
        inside = [manifest.parent for manifest in path.glob(f"*/{MANIFEST}")]
        hint = f"did you mean {inside[0]}?" if inside else "expected a directory <root>/<digest>"
        raise BundleError(f"{path} is not a bundle: no {MANIFEST}; {hint}")
    expected = digest or path.resolve().name
    if len(expected) != 64:
        raise BundleError(
            f"{path}: a bundle's directory is named by its digest, 64 hexadecimal digits; "
            "restore its name, or pass --digest to the predictor"
        )
    files = _bundle_files(path)
    versions = _versions(files)
    if (size := files[MANIFEST].stat().st_size) > MAX_DOCUMENT_BYTES:
        raise BundleError(f"{path}/{MANIFEST} has {size:,} bytes: it is not that of a bundle")
    text = files[MANIFEST].read_bytes()
    manifest = parse_manifest(text, expected, str(path))
    _require_unmodified(path, manifest, files)
    signed = {**manifest.files, MANIFEST: sha256(text).hexdigest()}
    signer = trust.require_signature(path, signed)
    _require_judged(path, manifest, files)
    trust.require_floor(manifest.evaluation, manifest.config.gate)
    return LoadedBundle(path, expected, manifest, signer, versions)


def _bundle_files(path: Path) -> dict[str, Path]:
    try:
        return tree_files(path)
    except ArtifactError as error:
        raise BundleError(f"{path} was modified: {error}") from error


def _versions(files: Mapping[str, Path]) -> dict[str, FileVersion]:
    """Return the version of each file except the signature, which may be renewed."""
    stats = {name: file.stat() for name, file in files.items() if name != SIGNATURE}
    return {
        name: (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        for name, stat in stats.items()
    }


def _require_unmodified(path: Path, manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Raise `BundleError` about the first file that was changed, removed or added."""
    if extra := sorted(set(files) - set(manifest.files) - {MANIFEST, SIGNATURE}):
        raise BundleError(f"{path} was modified: {extra[0]} was added; remove it")
    for name, digest in manifest.files.items():
        if name not in files:
            raise BundleError(f"{path} was modified: {name} is missing; download it again")
        size = files[name].stat().st_size
        if size != manifest.sizes[name] or file_digest(files[name]) != digest:
            raise BundleError(f"{path} was modified: {name} was changed; download it again")


def _require_judged(path: Path, manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Raise `BundleError` unless the bundle follows from the artifacts that the gate judged."""
    judged = manifest.artifacts
    artifacts = {"model": judged.model, "evaluation": judged.evaluation}
    manifest.decision.require_passed({name: tree_digest(each) for name, each in artifacts.items()})
    try:
        origins = origins_of(judged, manifest.combination)
        expected = {name: artifacts[artifact][file] for name, (artifact, file) in origins.items()}
        expected |= {name: manifest.files.get(name, "missing") for name in (CARD, PROVENANCE)}
        for name, _ in sorted(expected.items() ^ manifest.files.items()):
            raise BundleError(f"{name} is not the file that was evaluated")
        derived = derived_fields(files, judged, manifest.evaluation, manifest.config)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    for name, value in derived.items():
        if getattr(manifest, name) != value:
            raise BundleError(f"{path}: {name} differs from the judged artifacts")
    classifier = {name: manifest.files[name] for name in origins}
    for name, content in described(manifest, classifier).items():
        if manifest.files.get(name) != sha256(content).hexdigest():
            raise BundleError(f"{path}: {name} does not describe this bundle")
