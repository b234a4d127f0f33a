"""What KServe's webhooks refuse although the schema allows it.

Written after the validators of its source (August 2026), as far as our objects come near them:
`pkg/apis/serving/v1beta1/inference_service_validation.go`, `component.go` beside it, and
`pkg/webhook/admission/servingruntime`. A KServe built from that source refused each case of
`test_admission`. Other predictors than a model, transformers and several nodes are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.manifests.kustomize import containers

Object = dict[str, Any]
_KSERVE = "serving.kserve.io"
_SCALING = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling")


def refusals(thing: Object, former: Object | None = None) -> list[str]:
    """Why KServe refuses to create an object, or to change `former` into it."""
    if thing["kind"] == "ServingRuntime":
        return list(_python_path(thing["spec"]))
    if thing["kind"] != "InferenceService":
        return []
    return [*_service(thing), *_canaries(thing), *(_change(thing, former) if former else ())]


def _service(service: Object) -> Iterator[str]:
    name, predictor = service["metadata"]["name"], service["spec"]["predictor"]
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"{name} is no name for an InferenceService"
    scaler = _annotation(service, "autoscalerClass")
    if scaler not in (None, "hpa", "keda", "external", "none"):
        yield f"{scaler} is no autoscaler class"
    yield from _python_path(predictor)
    yield from _predictor(predictor)
    if (predictor.get("model") or {}).get("name"):
        yield "predictor.model.name must be empty"
    if _annotation(service, "deploymentMode") == "Standard":
        if scaler == "hpa":
            yield from _by_resource(predictor)
        if scaler == "keda":
            yield from _by_keda(predictor)
    elif "deploymentStrategy" in predictor:
        yield "a deploymentStrategy is for the Standard mode alone"


def _predictor(predictor: Object) -> Iterator[str]:
    """What holds of every predictor, a canary's too."""
    if "model" not in predictor:
        yield "a predictor needs a model"
    least, most = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    if least < 0 or most < 0:
        yield "replicas can't be fewer than none"
    if most and least > most:
        yield "minReplicas is above maxReplicas"
    if predictor.get("containerConcurrency", 0) < 0:
        yield "containerConcurrency can't be negative"
    if "storageUris" in predictor and (predictor.get("model") or {}).get("storageUri"):
        yield "storageUri and storageUris exclude each other"


def _canaries(service: Object) -> Iterator[str]:
    canaries = service["spec"].get("canary") or []
    stable = service["spec"]["predictor"]
    if not canaries:
        return
    if _annotation(service, "deploymentMode") != "Standard":
        yield "a canary is for the Standard mode alone"
    names = [canary["predictor"].get("name", "") for canary in canaries]
    if "" in names:
        yield "a canary's predictor needs a name"
    if len(set(names)) < len(names):
        yield "two canaries have one name"
    if stable.get("name", "") in names:
        yield "a canary has the stable predictor's name"
    for canary in canaries:
        predictor, percent = canary["predictor"], canary["trafficPercent"]
        if not 0 <= percent <= 100:
            yield f"trafficPercent {percent} is no percentage"
        yield from _predictor(predictor)
        yield from (f"a canary can't set {key}" for key in _SCALING if key in predictor)
        if predictor.get("minReplicas", 0) > stable.get("minReplicas", 1):
            yield "a canary can't have more pods than the stable predictor"
    if sum(canary["trafficPercent"] for canary in canaries) > 100:
        yield "canaries get more than all requests"


def _by_resource(predictor: Object) -> Iterator[str]:
    metric, target = predictor.get("scaleMetric", "cpu"), predictor.get("scaleTarget")
    if metric not in ("cpu", "memory"):
        yield f"an HPA can't scale by {metric}"
    if target is not None and not 1 <= target <= 100:
        yield f"scaleTarget {target} is no percentage"
    for each in (predictor.get("autoScaling") or {}).get("metrics", ()):
        if each["type"] != "Resource":
            yield f"an HPA has no {each['type']} metrics"


def _by_keda(predictor: Object) -> Iterator[str]:
    if "scaleMetric" in predictor:
        yield "KEDA takes no scaleMetric"
    for each in (predictor.get("autoScaling") or {}).get("metrics", ()):
        key = {"Resource": "resource", "External": "external", "PodMetric": "podmetric"}.get(
            each["type"]
        )
        if key is None:
            yield f"KEDA has no {each['type']} metrics"
        elif key not in each:
            yield f"a metric of type {each['type']} needs {key}"
        elif key != "resource":
            target = each[key]["target"]
            if not each[key]["metric"].get("query"):
                yield "a metric needs a query"
            if "value" not in target:
                yield "a metric needs target.value"
            if target["type"] == "AverageValue" and "averageValue" not in target:
                yield "AverageValue needs target.averageValue"


def _change(service: Object, former: Object) -> Iterator[str]:
    if _annotation(service, "deploymentMode") != _annotation(former, "deploymentMode"):
        yield "the deployment mode can't be changed"
    new, old = service["spec"]["predictor"], former["spec"]["predictor"]
    renamed = new.get("name", "") != old.get("name", "")
    if renamed and new["model"].get("storageUri") == old["model"].get("storageUri"):
        yield "another predictor.name goes with another model"


def _python_path(tree: Object) -> Iterator[str]:
    for container in (*containers(tree), tree.get("model") or {}):
        if any(entry["name"] == "PYTHONPATH" for entry in container.get("env", ())):
            yield "PYTHONPATH is not allowed"


def _annotation(service: Object, name: str) -> str | None:
    return (service["metadata"].get("annotations") or {}).get(f"{_KSERVE}/{name}")
