"""What deploy reads from an InferenceService, and the few fields of it that are deploy's own.

Manifests make the InferenceService and own its shape. Without `runtime` and `storageUri` KServe
finds nothing to start; deploy applies these two and the digest that the predictor is to insist
on, and later changes nothing but them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grocer.settings import DeployConfig

DIGEST = "GROCER_BUNDLE_DIGEST"
"""Environment variable of the predictor: the digest that its bundle must have."""
FORMAT = "grocer"
_STOP = "serving.kserve.io/stop"
_Object = Mapping[str, Any]


@dataclass(frozen=True)
class Served:
    """A bundle that predictors are told to serve.

    `part` tells several predictors of one InferenceService apart: KServe names a canary's
    objects by it, and it stays with a canary that was promoted.
    """

    uri: str
    digest: str
    part: str = ""

    def deployment(self, service: str) -> str:
        """Name of its Deployment and of its Service, as KServe makes them."""
        return f"{service}-{self.part}-predictor" if self.part else f"{service}-predictor"


@dataclass(frozen=True)
class Canary:
    """A bundle that gets a share of the requests beside the one that serves."""

    served: Served
    percent: int


def served(service: _Object) -> Served | None:
    """What an InferenceService serves; None before the first deploy."""
    return _served(service["spec"]["predictor"])


def canary(service: _Object) -> Canary | None:
    """Its canary, if it has one."""
    for entry in service["spec"].get("canary") or []:
        if found := _served(entry["predictor"]):
            return Canary(found, entry["trafficPercent"])
    return None


def _served(predictor: _Object) -> Served | None:
    model = predictor.get("model") or {}
    digests = [e["value"] for e in model.get("env") or [] if e["name"] == DIGEST]
    if not model.get("storageUri") or not digests:
        return None
    return Served(model["storageUri"], digests[0], predictor.get("name") or "")


def fields(
    deploy: DeployConfig, bundle: Served, beside: Canary | None = None, *, stopped: bool = False
) -> dict[str, Any]:
    """All that deploy owns: what serves, what is tried beside it, whether pods run at all."""
    metadata: dict[str, Any] = {"name": deploy.name, "namespace": deploy.namespace}
    if stopped:
        metadata["annotations"] = {_STOP: "true"}
    spec: dict[str, Any] = {"predictor": _predictor(deploy, bundle)}
    if beside is not None:
        predictor = _predictor(deploy, beside.served)
        predictor["model"]["name"] = ""  # the CRD asks for it here, and only here
        spec["canary"] = [{"trafficPercent": beside.percent, "predictor": predictor}]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": spec,
    }


def _predictor(deploy: DeployConfig, bundle: Served) -> dict[str, Any]:
    model = {
        "modelFormat": {"name": FORMAT},
        "runtime": deploy.runtime,
        "storageUri": bundle.uri,
        "env": [{"name": DIGEST, "value": bundle.digest}],
    }
    return {**({"name": bundle.part} if bundle.part else {}), "model": model}
