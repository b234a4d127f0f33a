"""A model of KServe's validating webhooks: rules that the CRD schemas do not express.

Covers the rules that apply to objects like Grocer's, after KServe's source of August 2026:
`pkg/apis/serving/v1beta1/inference_service_validation.go`, `component.go` in the same package, and
`pkg/webhook/admission/servingruntime`. A KServe built from that source rejected every case in
`test_admission`. Not covered: custom predictors, transformers, multi-node inference, the HPA.
"""

import re
from collections.abc import Iterator
from typing import Any

from tests.manifests.kustomize import containers

Object = dict[str, Any]
_KSERVE = "serving.kserve.io"
_SCALING = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling")


def violations(manifest: Object, previous: Object | None = None) -> list[str]:
    """Return why KServe rejects the creation of an object, or its update from `previous`."""
    if manifest["kind"] == "ServingRuntime":
        return list(_python_path(manifest["spec"]))
    if manifest["kind"] != "InferenceService":
        return []
    updates = _update(manifest, previous) if previous else ()
    return [*_service(manifest), *_canaries(manifest), *updates]


def _service(service: Object) -> Iterator[str]:
    name, predictor = service["metadata"]["name"], service["spec"]["predictor"]
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"{name}: invalid name"
    scaler = _annotation(service, "autoscalerClass")
    if scaler not in (None, "hpa", "keda", "external", "none"):
        yield f"{scaler}: unknown autoscaler class"
    yield from _python_path(predictor)
    yield from _predictor(predictor)
    if (predictor.get("model") or {}).get("name"):
        yield "predictor.model.name must be empty"
    if _annotation(service, "deploymentMode") == "Standard":
        if scaler == "keda":
            yield from _keda(predictor)
    elif "deploymentStrategy" in predictor:
        yield "deploymentStrategy requires Standard mode"


def _predictor(predictor: Object) -> Iterator[str]:
    """Rules for the stable predictor and for canaries."""
    if "model" not in predictor:
        yield "predictor.model is required"
    minimum, maximum = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    if minimum < 0 or maximum < 0:
        yield "negative replicas"
    if maximum and minimum > maximum:
        yield "minReplicas exceeds maxReplicas"
    if predictor.get("containerConcurrency", 0) < 0:
        yield "negative containerConcurrency"
    if "storageUris" in predictor and (predictor.get("model") or {}).get("storageUri"):
        yield "storageUri and storageUris are mutually exclusive"


def _canaries(service: Object) -> Iterator[str]:
    canaries = service["spec"].get("canary") or []
    stable = service["spec"]["predictor"]
    if not canaries:
        return
    if _annotation(service, "deploymentMode") != "Standard":
        yield "canary requires Standard mode"
    names = [canary["predictor"].get("name", "") for canary in canaries]
    if "" in names:
        yield "canary predictor.name is required"
    if len(set(names)) < len(names):
        yield "duplicate canary name"
    if stable.get("name", "") in names:
        yield "canary has the name of the stable predictor"
    for canary in canaries:
        predictor, percent = canary["predictor"], canary["trafficPercent"]
        if not 0 <= percent <= 100:
            yield f"trafficPercent {percent} out of range"
        yield from _predictor(predictor)
        yield from (f"{key} not allowed in a canary" for key in _SCALING if key in predictor)
        if predictor.get("minReplicas", 0) > stable.get("minReplicas", 1):
            yield "canary minReplicas exceeds the stable predictor's"
    if sum(canary["trafficPercent"] for canary in canaries) > 100:
        yield "sum of trafficPercent exceeds 100"


def _keda(predictor: Object) -> Iterator[str]:
    if "scaleMetric" in predictor:
        yield "KEDA does not support scaleMetric"
    keys = {"Resource": "resource", "External": "external", "PodMetric": "podmetric"}
    for metric in (predictor.get("autoScaling") or {}).get("metrics", ()):
        key = keys.get(metric["type"])
        if key is None:
            yield f"KEDA does not support {metric['type']} metrics"
        elif key not in metric:
            yield f"{key} is required"
        elif key != "resource":
            target = metric[key]["target"]
            if not metric[key]["metric"].get("query"):
                yield "metric.query is required"
            if "value" not in target:
                yield "target.value is required"
            if target["type"] == "AverageValue" and "averageValue" not in target:
                yield "target.averageValue is required"


def _update(service: Object, previous: Object) -> Iterator[str]:
    if _annotation(service, "deploymentMode") != _annotation(previous, "deploymentMode"):
        yield "deploymentMode is immutable"
    new, old = service["spec"]["predictor"], previous["spec"]["predictor"]
    renamed = new.get("name", "") != old.get("name", "")
    if renamed and new["model"].get("storageUri") == old["model"].get("storageUri"):
        yield "predictor.name and storageUri must change together"


def _python_path(tree: Object) -> Iterator[str]:
    for container in (*containers(tree), tree.get("model") or {}):
        if any(entry["name"] == "PYTHONPATH" for entry in container.get("env", ())):
            yield "env PYTHONPATH is not allowed"


def _annotation(service: Object, name: str) -> str | None:
    return (service["metadata"].get("annotations") or {}).get(f"{_KSERVE}/{name}")
