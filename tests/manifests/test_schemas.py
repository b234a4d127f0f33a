"""Protects the fields of manifests: a mistyped one is dropped, or refused on a cluster."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from tests.manifests import schemas
from tests.manifests.kustomize import COMPONENTS, TARGETS, Object, build, one, with_component

BUILDS = [(target, "") for target in TARGETS]
BUILDS += [("base/serving", component) for component in COMPONENTS]


def built(target: str, component: str) -> list[Object]:
    return with_component(target, component) if component else build(target)


@pytest.mark.parametrize("version", schemas.VERSIONS)
@pytest.mark.parametrize(("target", "component"), BUILDS)
def test_every_field_is_known(target: str, component: str, version: str) -> None:
    for thing in built(target, component):
        if thing["apiVersion"].startswith("monitoring.coreos.com/"):
            continue  # no package has its schemas: see test_monitoring
        assert found(json.dumps(thing), version) == []


@cache
def found(text: str, version: str) -> list[str]:
    """Faults of an object; most are in several builds, and schemas are slow to read."""
    return schemas.faults(json.loads(text), version)


def changed(thing: Object, path: str, value: Any) -> Object:
    *way, last = path.split(".")
    for key in way:
        thing = thing[int(key) if key.isdigit() else key]
    if value is None:
        del thing[last]
    else:
        thing[last] = value
    return thing


@pytest.mark.parametrize(
    ("kind", "path", "value", "fault"),
    [
        ("InferenceService", "spec.predictor.maxReplica", 3, "no such field"),
        ("InferenceService", "spec.predictor.minReplicas", "2", "is no int"),
        ("InferenceService", "spec.predictor.minReplicas", True, "is no int"),
        ("InferenceService", "spec.predictor", None, "must not be `None`"),
        ("InferenceService", "spec.predictor.model.modelFormat", None, "must not be `None`"),
        ("InferenceService", "spec.predictor.model", ["grocer"], "is no V1beta1ModelSpec"),
        ("InferenceService", "spec.predictor.securityContext.fsGroups", 1, "unexpected"),
        ("InferenceService", "spec.predictor.labels", ["a"], "is no mapping"),
        ("InferenceService", "spec.predictor.deploymentStrategy.type", 1, "is not of type"),
        ("ServingRuntime", "spec.containers", None, "must not be `None`"),
        ("ServingRuntime", "spec.containers", {}, "is no list"),
        ("ServingRuntime", "spec.containers.0.name", None, "is a required property"),
        ("ServingRuntime", "spec.containers.0.livenessProb", {}, "unexpected"),
        ("ServingRuntime", "spec.protocolVersions", [1], "is no str"),
        ("ServingRuntime", "spec.terminationGracePeriodSeconds", 30, "no such field"),
        ("ClusterStorageContainer", "spec.supportedUriFormats", None, "must not be `None`"),
        ("NetworkPolicy", "spec.podSelectors", {}, "unexpected"),
        ("PodDisruptionBudget", "spec.maxUnavailable", [1], "is not valid"),
        ("ServiceAccount", "automountServiceAccountToken", "no", "is not of type"),
    ],
)
def test_what_is_wrong_is_found(kind: str, path: str, value: Any, fault: str) -> None:
    name = "grocer-serving" if kind == "ServiceAccount" else "grocer"
    name = "grocer-dns" if kind == "NetworkPolicy" else name
    thing = one(build("base/serving"), kind, name)
    changed(thing, path, value)
    assert any(fault in each for each in schemas.faults(thing)), schemas.faults(thing)


def test_trainers_models_are_as_strict() -> None:
    job = one(build("trainer"), "TrainJob", "grocer-train")
    job["spec"]["trainer"]["numProcs"] = 2
    assert schemas.faults(job) == ["TrainJob: has a field that there is not"]
    del job["spec"]["trainer"]["numProcs"]
    job["spec"]["trainer"]["numNodes"] = "one"
    assert schemas.faults(job)


def test_a_kind_without_a_schema_is_no_pass() -> None:
    for version in ("example.com/v1", "serving.kserve.io/v1beta1", "trainer.kubeflow.org/v1alpha1"):
        with pytest.raises(LookupError):
            schemas.faults({"apiVersion": version, "kind": "Grocer", "metadata": {"name": "x"}})
