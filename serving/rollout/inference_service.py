"""What deploy reads from an InferenceService, and the few fields of it that are deploy's own.

Manifests make the InferenceService and own its shape. Without `runtime` and `storageUri` KServe
finds nothing to start; deploy applies these two and the digest that the predictor is to insist
on, and later changes nothing but them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grocer.config.deployment import DeployConfig

MANAGER = "grocer-deploy"
"""Owner of the fields that deploy applies."""
DIGEST = "GROCER_BUNDLE_DIGEST"
"""Environment variable of the predictor: the digest that its bundle must have."""
FORMAT = "grocer"
STOP = "serving.kserve.io/stop"
"""Annotation by which KServe takes all pods away."""
_Object = Mapping[str, Any]


@dataclass(frozen=True)
class Served:
    """A bundle that predictors are told to serve, by a ServingRuntime.

    `part` tells several predictors of one InferenceService apart: KServe names a canary's
    objects by it, and it stays with a canary that was promoted.
    """

    uri: str
    digest: str
    runtime: str
    part: str = ""

    def deployment(self, service: str) -> str:
        """Name of its Deployment and of its Service, as KServe makes them."""
        return f"{service}-{self.part}-predictor" if self.part else f"{service}-predictor"


@dataclass(frozen=True)
class Canary:
    """A bundle that gets a share of the requests beside the one that serves.

    `replicas` is how many pods it is to have; None: as many of the stable pods as its share is.
    """

    served: Served
    percent: int
    replicas: int | None = None


def served(service: _Object) -> Served | None:
    """What an InferenceService serves; None before the first deploy, and where that failed."""
    if stopped_by(service) == MANAGER:
        return None
    return _served(service["spec"]["predictor"])


def canary(service: _Object) -> Canary | None:
    """Its canary, if it has one."""
    for entry in service["spec"].get("canary") or []:
        if found := _served(entry["predictor"]):
            return Canary(found, entry["trafficPercent"], entry["predictor"].get("minReplicas"))
    return None


def names(service: _Object, bundle: Served) -> bool:
    """Whether it tells a predictor to serve that bundle, alone or as a canary."""
    beside = canary(service)
    return bundle in (_served(service["spec"]["predictor"]), beside and beside.served)


def replicas(service: _Object) -> int:
    """The fewest pods that it runs with."""
    return int(service["spec"]["predictor"].get("minReplicas", 1))


def stopped_by(service: _Object) -> str | None:
    """Name of the field manager that stopped it; None: it is not stopped."""
    metadata = service["metadata"]
    if (metadata.get("annotations") or {}).get(STOP) != "true":
        return None
    for entry in metadata.get("managedFields") or []:
        owned = (entry.get("fieldsV1") or {}).get("f:metadata", {}).get("f:annotations", {})
        if f"f:{STOP}" in owned:
            return str(entry["manager"])
    return "somebody"


def _served(predictor: _Object) -> Served | None:
    model = predictor.get("model") or {}
    digests = [e.get("value") for e in model.get("env") or [] if e["name"] == DIGEST]
    if not model.get("storageUri") or not digests:
        return None
    name = predictor.get("name") or ""
    return Served(model["storageUri"], digests[0], model.get("runtime") or "", name)


def fields(
    deploy: DeployConfig, bundle: Served, beside: Canary | None = None, *, stopped: bool = False
) -> dict[str, Any]:
    """All that deploy owns: what serves, what is tried beside it, whether pods run at all."""
    metadata: dict[str, Any] = {"name": deploy.name, "namespace": deploy.namespace}
    if stopped:
        metadata["annotations"] = {STOP: "true"}
    spec: dict[str, Any] = {"predictor": _predictor(bundle)}
    if beside is not None:
        predictor = _predictor(beside.served)
        predictor["model"]["name"] = ""  # the CRD asks for it here, and only here
        if beside.replicas is not None:
            predictor["minReplicas"] = beside.replicas
        spec["canary"] = [{"trafficPercent": beside.percent, "predictor": predictor}]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": spec,
    }


def _predictor(bundle: Served) -> dict[str, Any]:
    model = {
        "modelFormat": {"name": FORMAT},
        "runtime": bundle.runtime,
        "storageUri": bundle.uri,
        "env": [{"name": DIGEST, "value": bundle.digest}],
    }
    return {**({"name": bundle.part} if bundle.part else {}), "model": model}


def unrecognised(service: _Object) -> str:
    """What KServe's controller finds wrong with its specification, or empty."""
    status = (service.get("status") or {}).get("modelStatus") or {}
    if status.get("transitionStatus") != "InvalidSpec":
        return ""
    return str((status.get("lastFailureInfo") or {}).get("message", "InvalidSpec"))


def share(service: _Object, part: str) -> int | None:
    """Percent of the requests that KServe has given to a canary; None: it has not looked yet."""
    for status in (service.get("status") or {}).get("canaryStatuses") or []:
        if status.get("name") == part:
            return int(status.get("trafficPercent", 0))
    return None
