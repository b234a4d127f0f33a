"""The fields of an InferenceService that a deploy reads, and the few that it owns.

manifests/ create the InferenceService and own its shape. Deploy owns the ServingRuntime, the
storageUri and the expected digest of each predictor; KServe starts no pods before they are set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grocer.config.deployment import DeployConfig

FIELD_MANAGER = "grocer-deploy"
"""Field manager of server-side apply."""
DIGEST_ENV = "GROCER_BUNDLE_DIGEST"
"""Environment variable of the predictor: the digest that its bundle must have."""
MODEL_FORMAT = "grocer"
STOP_ANNOTATION = "serving.kserve.io/stop"
"""Annotation that makes KServe remove all pods."""
GROUP, VERSION, PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
_Object = Mapping[str, Any]


@dataclass(frozen=True)
class Revision:
    """A bundle and the ServingRuntime that serves it.

    `predictor` is the name of the predictor, from which KServe derives the names of the canary's
    Deployment and Service. A promoted canary keeps it.
    """

    uri: str
    digest: str
    runtime: str
    predictor: str = ""

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


def stable_revision(service: _Object) -> Revision | None:
    """Return the stable revision; None before the first deploy, or if that deploy failed."""
    if stopped_by(service) == FIELD_MANAGER:
        return None
    return _revision(service["spec"]["predictor"])


def find_canary(service: _Object) -> Canary | None:
    """Return the canary, if there is one."""
    for entry in service["spec"].get("canary") or []:
        predictor = entry["predictor"]
        if revision := _revision(predictor):
            return Canary(revision, entry["trafficPercent"], predictor.get("minReplicas"))
    return None


def references(service: _Object, revision: Revision) -> bool:
    """Return whether a revision is the stable one or the canary."""
    canary = find_canary(service)
    return revision in (_revision(service["spec"]["predictor"]), canary and canary.revision)


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


def canary_traffic(service: _Object, predictor: str) -> int | None:
    """Return the traffic percentage in a canary's status; None before the controller sets it."""
    for status in (service.get("status") or {}).get("canaryStatuses") or []:
        if status.get("name") == predictor:
            return int(status.get("trafficPercent", 0))
    return None


def apply_configuration(
    config: DeployConfig, stable: Revision, canary: Canary | None = None, *, stopped: bool = False
) -> dict[str, Any]:
    """Return the server-side apply body: every field that deploy owns, and nothing else."""
    metadata: dict[str, Any] = {"name": config.name, "namespace": config.namespace}
    if stopped:
        metadata["annotations"] = {STOP_ANNOTATION: "true"}
    spec: dict[str, Any] = {"predictor": _predictor(stable)}
    if canary is not None:
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
    model = {
        "modelFormat": {"name": MODEL_FORMAT},
        "runtime": revision.runtime,
        "storageUri": revision.uri,
        "env": [{"name": DIGEST_ENV, "value": revision.digest}],
    }
    return {**({"name": revision.predictor} if revision.predictor else {}), "model": model}


def _revision(predictor: _Object) -> Revision | None:
    model = predictor.get("model") or {}
    digests = [e.get("value") for e in model.get("env") or [] if e["name"] == DIGEST_ENV]
    if not model.get("storageUri") or not digests:
        return None
    name = predictor.get("name") or ""
    return Revision(model["storageUri"], digests[0], model.get("runtime") or "", name)
