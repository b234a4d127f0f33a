"""The lineage of a run's verdict: from the bundle or report to decision, run, data and base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from grocer.artifacts.base import Artifact, Digest, Share
from grocer.artifacts.decision import Decision
from grocer.artifacts.evaluation import Evaluation
from grocer.config.run import RunConfig
from grocer.errors import ArtifactError
from grocer.io.atomic import json_bytes, read_json
from grocer.io.storage import Storage
from grocer.release.provenance import Build, build_of

if TYPE_CHECKING:
    from grocer.release.bundle import LoadedBundle


@dataclass(frozen=True)
class Version:
    """Ids of a version in a model registry, and of its registered model."""

    model_id: str
    version_id: str


class Lineage(Artifact):
    """`lineage.json` of a run; what a model registry has of one version."""

    FILE: ClassVar = "lineage.json"
    name: str
    """Name of the registered model: `deploy.name`."""
    run: str
    """Id of the run, or the digest of its evaluation if the id is not known."""
    verdict: Literal["passed", "failed"]
    failed_rules: str
    """What the failed rules of the gate say; empty if it passed."""
    bundle: Digest | None
    """None: the gate failed."""
    uri: str
    """Address of the bundle, or of the report if the gate failed."""
    accuracy: Share
    """Test accuracy, with its confidence interval."""
    accuracy_low: Share
    accuracy_high: Share
    confidence: Share
    """Confidence level of the interval."""
    baselines: dict[str, Share]
    """Test accuracy of each baseline, and of the champion if there is one."""
    digests: dict[str, str]
    """Of the data, the splits, the model, the base, the evaluation, decision and configuration."""
    base: str | None
    """Source of the base model; None if the classifier does not use it."""
    recipe: str
    platform: Literal["kubeflow", "local"]
    started: str
    finished: str
    """UTC times of the run."""
    version: str
    """Version of Grocer."""
    commit: str | None

    @classmethod
    def of_bundle(cls, bundle: LoadedBundle, uri: str) -> Lineage:
        """Return the lineage of a verified bundle, which is at `uri`."""
        manifest = bundle.manifest
        judged = manifest.decision, manifest.evaluation
        return _lineage(manifest.build, *judged, manifest.config, manifest.base, bundle.digest, uri)

    @classmethod
    def of_run(
        cls, artifacts: Mapping[str, Path], config: RunConfig, uri: str, bundle: str | None = None
    ) -> Lineage:
        """Return the lineage of a run that has ended.

        Args:
            artifacts: the artifacts `model`, `splits`, `evaluation` and `decision`.
            uri: address of the bundle, or of the report if the gate failed.
            bundle: the bundle's digest; None if the gate failed.

        Raises:
            ArtifactError: an artifact is missing or invalid.
        """
        evaluation = Evaluation.read(artifacts["evaluation"])
        base_file = artifacts["model"] / "base.json"
        uses_base = evaluation.combination.uses_adapter and base_file.is_file()
        base = read_json(base_file) if uses_base else None
        decision = Decision.read(artifacts["decision"])
        return _lineage(build_of(artifacts), decision, evaluation, config, base, bundle, uri)


def read_lineage(run: str, directory: Path) -> Lineage:
    """Return the lineage of a run, from its `lineage.json` or its bundle.

    Args:
        run: output directory of `grocer run`, address of the artifact `lineage` of a run on
            Kubeflow, or path or address of a bundle.
        directory: where a remote bundle is downloaded to.

    Raises:
        ArtifactError: neither is there, or it is invalid.
        BundleError: the bundle is invalid.
    """
    from grocer.release.manifest import MANIFEST
    from grocer.release.registry import is_image, open_bundle

    if "://" in run:
        if not is_image(run):
            storage = Storage(run, setting="RUN", error=ArtifactError)
            if storage.exists(Lineage.FILE):
                return Lineage.parse(storage.read_bytes(Lineage.FILE), f"{run}/{Lineage.FILE}")
    elif not Path(run, MANIFEST).is_file():
        return Lineage.read(Path(run))
    address = run if "://" in run else str(Path(run).resolve())
    return Lineage.of_bundle(open_bundle(run, directory, setting="RUN"), address)


def _lineage(
    build: Build,
    decision: Decision,
    evaluation: Evaluation,
    config: RunConfig,
    base: Mapping[str, Any] | None,
    bundle: str | None,
    uri: str,
) -> Lineage:
    test, champion = evaluation.metrics.test, evaluation.champion
    compared = {**evaluation.baselines, **({"champion": champion} if champion else {})}
    digests = {
        **decision.digests,
        "decision": sha256(json_bytes(decision.model_dump())).hexdigest(),
        "configuration": config.digest,
        "data": build.data,
        "base": base and base["digest"],
    }
    return Lineage(
        name=config.deploy.name,
        run=build.run or decision.digests["evaluation"],
        verdict="passed" if decision.passed else "failed",
        failed_rules=" ".join(reason.sentence for reason in decision.failures),
        bundle=bundle,
        uri=uri,
        accuracy=test.accuracy,
        accuracy_low=test.accuracy_low,
        accuracy_high=test.accuracy_high,
        confidence=evaluation.confidence,
        baselines={name: each.accuracy for name, each in compared.items()},
        digests={name: str(digest) for name, digest in sorted(digests.items()) if digest},
        base=base["source"] if base else None,
        recipe=config.recipe,
        platform=build.platform,
        started=build.started,
        finished=build.finished,
        version=build.version,
        commit=build.commit,
    )
