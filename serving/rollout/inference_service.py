"""The fields of an InferenceService that a deploy reads, and the few that it owns.

manifests/ create the InferenceService and own its shape. Deploy owns the ServingRuntime, the
storageUri, the expected digest and one annotation of each predictor; KServe starts no pods before
they are set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from grocer.release.lineage import Version

FIELD_MANAGER = "grocer-deploy"
"""Field manager of server-side apply."""
DIGEST_ENV = "GROCER_BUNDLE_DIGEST"
"""Environment variable of the predictor: the digest that its bundle must have."""
MODEL_FORMAT = "grocer"
MIN_KSERVE = (0, 21)
"""First version whose controller writes the traffic of a canary into the HTTPRoute."""
STOP_ANNOTATION = "serving.kserve.io/stop"
"""Annotation that makes KServe remove all pods."""
RECORD_ANNOTATION = "grocer-deploy/rollout"
"""Annotation of a predictor: its `Record`. KServe copies annotations to pods, and those of the
InferenceService to the pods of all predictors, so setting one there would restart them all."""
MODEL_LABEL = "modelregistry.kubeflow.org/registered-model-id"
VERSION_LABEL = "modelregistry.kubeflow.org/model-version-id"
"""Labels by which the model registry's controller links an InferenceService to its version.

KServe copies labels to pods, too. Each predictor has its own, which take precedence, so that a
promotion does not restart its pods.
"""
GROUP, VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
_Object = Mapping[str, Any]


@dataclass(frozen=True)
class Revision:
    """A bundle and the ServingRuntime that serves it.

    `predictor` is the name of the predictor, from which KServe derives the names of the canary's
    Deployment and Service. A promoted canary keeps it, and its record.
    """

    uri: str
    digest: str
    runtime: str
    predictor: str = ""
    record: Record | None = None
    """None: deployed by an older version, or restored."""
    version: Version | None = None
    """The bundle in the model registry; None: not registered when it was deployed."""

    def deployment(self, service: str) -> str:
        """Return the name that KServe gives to the predictor's Deployment and Service."""
        return f"{service}-{self.predictor}-predictor" if self.predictor else f"{service}-predictor"


@dataclass(frozen=True)
class Canary:
    """A revision that receives part of the traffic beside the stable one.

    Without `min_replicas` KServe scales it to its share of the stable pods.
    """

    revision: Revision
    traffic_percent: int
    min_replicas: int | None = None


@dataclass(frozen=True)
class State:
    """All fields that deploy owns."""

    stable: Revision | None = None
    """None before the first deploy."""
    canary: Canary | None = None
    stopped: bool = False
    """The first deploy failed, so KServe runs no pods."""

    @property
    def champion(self) -> Revision | None:
        """The stable revision; None before the first deploy, or if that deploy failed."""
        return None if self.stopped else self.stable

    @property
    def revisions(self) -> tuple[Revision, ...]:
        """The stable revision and the canary's, if they exist."""
        canary = self.canary.revision if self.canary else None
        return tuple(revision for revision in (self.stable, canary) if revision)

    def without_records(self) -> State:
        """Return what a rollback restores: this state, or none if no pods run."""
        if self.stopped or self.stable is None:
            return State()
        canary = self.canary and replace(
            self.canary, revision=replace(self.canary.revision, record=None)
        )
        return State(replace(self.stable, record=None), canary)


@dataclass(frozen=True)
class Record:
    """What a rollout has changed, written in the same request as the change.

    A process that is killed cannot restore the previous state; the next one reads it here.
    """

    previous: State
    """Its revisions have no records."""
    traffic_percent: int | None = None
    """The canary's traffic before a promotion or a rollback; None: not a canary."""
    steps: tuple[int, ...] = ()
    """All percentages of a canary that is analysed."""


_RECORD = TypeAdapter(Record)


def read_state(service: _Object) -> State:
    """Return the state of an InferenceService.

    Raises:
        DeployError: a record is invalid.
    """
    stable = _revision(service["spec"]["predictor"])
    canary = None
    for entry in service["spec"].get("canary") or []:
        predictor = entry["predictor"]
        if revision := _revision(predictor):
            canary = Canary(revision, entry["trafficPercent"], predictor.get("minReplicas"))
            break
    return State(stable, canary, stable is not None and stopped_by(service) == FIELD_MANAGER)


def min_replicas(service: _Object) -> int:
    """Return the minimum number of stable pods."""
    return int(service["spec"]["predictor"].get("minReplicas", 1))


def stopped_by(service: _Object) -> str | None:
    """Return the field manager that set the stop annotation; None if the service is not stopped."""
    metadata = service["metadata"]
    if (metadata.get("annotations") or {}).get(STOP_ANNOTATION) != "true":
        return None
    for entry in metadata.get("managedFields") or []:
        owned = (entry.get("fieldsV1") or {}).get("f:metadata", {}).get("f:annotations", {})
        if f"f:{STOP_ANNOTATION}" in owned:
            return str(entry["manager"])
    return "an unknown field manager"


def spec_error(service: _Object) -> str:
    """Return why KServe's controller rejects the specification, or an empty string."""
    status = (service.get("status") or {}).get("modelStatus") or {}
    if status.get("transitionStatus") != "InvalidSpec":
        return ""
    return str((status.get("lastFailureInfo") or {}).get("message", "InvalidSpec"))


def apply_configuration(
    config: DeployConfig, state: State, resource_version: str | None = None
) -> dict[str, Any]:
    """Return the server-side apply body: every field that deploy owns, and nothing else.

    Args:
        resource_version: the version that must not have changed; None: any.
    """
    metadata: dict[str, Any] = {"name": config.name, "namespace": config.namespace}
    if resource_version is not None:
        metadata["resourceVersion"] = resource_version
    if state.stopped:
        metadata["annotations"] = {STOP_ANNOTATION: "true"}
    if state.stable is None:
        raise ValueError("a state without a stable revision cannot be applied")
    if state.stable.version is not None and not state.stopped:
        metadata["labels"] = _labels(state.stable.version)
    spec: dict[str, Any] = {"predictor": _predictor(state.stable)}
    if (canary := state.canary) is not None:
        predictor = _predictor(canary.revision)
        predictor["model"]["name"] = ""  # required by the CRD, for canaries only
        if canary.min_replicas is not None:
            predictor["minReplicas"] = canary.min_replicas
        spec["canary"] = [{"trafficPercent": canary.traffic_percent, "predictor": predictor}]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": spec,
    }


def _predictor(revision: Revision) -> dict[str, Any]:
    predictor: dict[str, Any] = {"name": revision.predictor} if revision.predictor else {}
    if revision.record is not None:
        record = _RECORD.dump_json(revision.record, exclude_none=True).decode()
        predictor["annotations"] = {RECORD_ANNOTATION: record}
    if revision.version is not None:
        predictor["labels"] = _labels(revision.version)
    predictor["model"] = {
        "modelFormat": {"name": MODEL_FORMAT},
        "runtime": revision.runtime,
        "storageUri": revision.uri,
        "env": [{"name": DIGEST_ENV, "value": revision.digest}],
    }
    return predictor


def _labels(version: Version) -> dict[str, str]:
    return {MODEL_LABEL: version.model_id, VERSION_LABEL: version.version_id}


def _revision(predictor: _Object) -> Revision | None:
    model = predictor.get("model") or {}
    digests = [e.get("value") for e in model.get("env") or [] if e["name"] == DIGEST_ENV]
    if not model.get("storageUri") or not digests:
        return None
    name, runtime = predictor.get("name") or "", model.get("runtime") or ""
    text = (predictor.get("annotations") or {}).get(RECORD_ANNOTATION)
    try:
        record = _RECORD.validate_json(text) if text else None
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise DeployError(
            f"the InferenceService's annotation {RECORD_ANNOTATION} is invalid ({reason}); "
            "only deploy may set it: remove it with kubectl edit"
        ) from error
    labels = predictor.get("labels") or {}
    known = MODEL_LABEL in labels and VERSION_LABEL in labels
    version = Version(labels[MODEL_LABEL], labels[VERSION_LABEL]) if known else None
    return Revision(model["storageUri"], digests[0], runtime, name, record, version)
