"""Tests that KServe's webhooks accept the manifests and every change that deploy makes."""

import itertools
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from grocer.config.deployment import DeployConfig
from serving.rollout.inference_service import (
    Canary,
    Record,
    Revision,
    State,
    apply_configuration,
    min_replicas,
)
from tests.manifests.admission import violations
from tests.manifests.kustomize import BUILDS, Object, build, get, set_field

CONFIG = DeployConfig(store="s3://bundles")
OLD = Revision("s3://bundles/" + "a" * 64, "a" * 64, "grocer")
NEW = Revision("s3://bundles/" + "b" * 64, "b" * 64, "grocer", "cbbbbbbbb", Record(State(OLD), 20))
SERVING_BUILDS = [(t, c) for t, c in BUILDS if t.startswith(("base/serving", "overlays/"))]
every_build = pytest.mark.parametrize(("target", "component"), SERVING_BUILDS)


def merge(manifest: Any, fields: Any) -> Any:
    """Server-side apply fields that no other manager owns."""
    if not isinstance(fields, dict) or not isinstance(manifest, dict):
        return deepcopy(fields)
    return {**manifest, **{key: merge(manifest.get(key), value) for key, value in fields.items()}}


@every_build
def test_manifests_are_accepted(target: str, component: str) -> None:
    for manifest in build(target, component):
        assert violations(manifest) == []


@every_build
def test_every_change_by_deploy_is_accepted(target: str, component: str) -> None:
    service = get(build(target, component), "InferenceService")
    states = [
        State(OLD),
        State(OLD, Canary(NEW, 20, min_replicas=1)),
        State(NEW),
        State(OLD, stopped=True),
    ]
    if min_replicas(service) == 0:  # deploy refuses a canary
        del states[1]
    applied = [merge(service, apply_configuration(CONFIG, state)) for state in states]
    for before, after in itertools.pairwise([service, *applied]):
        assert violations(after, before) == []


Change = Callable[[Object], Any]


def field(path: str, value: Any) -> Change:
    """Return a change that sets a field by its dotted path, or deletes it if `value` is None."""
    return lambda manifest: set_field(manifest, path, value)


def annotation(name: str, value: str) -> Change:
    def change(manifest: Object) -> None:
        manifest["metadata"]["annotations"][f"serving.kserve.io/{name}"] = value

    return change


def extra_canary(canary: Object | None = None) -> Change:
    """Return a change that appends a canary, by default a copy of the first."""

    def change(manifest: Object) -> None:
        manifest["spec"]["canary"].append(canary or manifest["spec"]["canary"][0])

    return change


METRIC = "spec.predictor.autoScaling.metrics.0"


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        (field("metadata.name", "Grocer"), "invalid name"),
        (field("metadata.name", "1grocer"), "invalid name"),
        (annotation("autoscalerClass", "kpa"), "unknown autoscaler class"),
        (annotation("deploymentMode", "Knative"), "requires Standard mode"),
        (annotation("deploymentMode", "Knative"), "deploymentMode is immutable"),
        (field("spec.predictor.model.env.0.name", "PYTHONPATH"), "PYTHONPATH"),
        (field("spec.predictor.model.name", "grocer"), "must be empty"),
        (field("spec.predictor.minReplicas", 5), "exceeds maxReplicas"),
        (field("spec.predictor.minReplicas", -1), "negative replicas"),
        (field("spec.predictor.containerConcurrency", -1), "negative containerConcurrency"),
        (field("spec.predictor.storageUris", [{"uri": "s3://b/a"}]), "mutually exclusive"),
        (field("spec.predictor.name", "other"), "must change together"),
        (field("spec.predictor.scaleMetric", "cpu"), "does not support scaleMetric"),
        (field(f"{METRIC}.type", "Pods"), "does not support Pods metrics"),
        (field(f"{METRIC}.external", None), "external is required"),
        (field(f"{METRIC}.external.metric.query", ""), "metric.query is required"),
        (field(f"{METRIC}.external.target.value", None), "target.value is required"),
        (field(f"{METRIC}.external.target.type", "AverageValue"), "target.averageValue"),
        (field("spec.canary.0.predictor.name", None), "predictor.name is required"),
        (field("spec.canary.0.trafficPercent", 101), "101 out of range"),
        (field("spec.canary.0.predictor.model", None), "predictor.model is required"),
        (field("spec.canary.0.predictor.maxReplicas", 2), "maxReplicas not allowed"),
        (field("spec.canary.0.predictor.minReplicas", 2), "exceeds the stable predictor's"),
        (extra_canary(), "duplicate canary name"),
        (field("spec.predictor.name", "cbbbbbbbb"), "name of the stable predictor"),
        (
            extra_canary({"trafficPercent": 90, "predictor": {"name": "x", "model": {}}}),
            "exceeds 100",
        ),
    ],
)
def test_violation_is_detected(change: Change, violation: str) -> None:
    """The InferenceService has a canary and KEDA."""
    service = get(build("overlays/kind", "keda"), "InferenceService")
    before = merge(service, apply_configuration(CONFIG, State(OLD, Canary(NEW, 20))))
    assert violations(before) == []
    after = deepcopy(before)
    change(after)
    messages = violations(after, before)
    assert any(violation in message for message in messages), messages


def test_runtime_must_not_set_pythonpath() -> None:
    runtime = get(build("base/serving"), "ServingRuntime")
    runtime["spec"]["containers"][0]["env"].append({"name": "PYTHONPATH", "value": "/tmp"})
    assert any("PYTHONPATH" in message for message in violations(runtime))
