"""Tests that all manifests pass strict schema validation."""

import json
from functools import cache
from typing import Any

import pytest

from tests.manifests.kustomize import BUILDS, build, get, set_field
from tests.manifests.schemas import VERSIONS, schema_errors


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("target", "component"), BUILDS)
def test_manifests_match_their_schemas(target: str, component: str, version: str) -> None:
    for manifest in build(target, component):
        if not manifest["apiVersion"].startswith("monitoring.coreos.com/"):  # no schemas
            assert cached_errors(json.dumps(manifest), version) == []


@cache
def cached_errors(text: str, version: str) -> list[str]:
    """Return schema violations; cached, because builds share most of their objects."""
    return schema_errors(json.loads(text), version)


@pytest.mark.parametrize(
    ("kind", "path", "value", "error"),
    [
        ("InferenceService", "spec.predictor.maxReplica", 3, "unknown field"),
        ("InferenceService", "spec.predictor.minReplicas", "2", "expected int"),
        ("InferenceService", "spec.predictor.minReplicas", True, "expected int"),
        ("InferenceService", "spec.predictor", None, "must not be `None`"),
        ("InferenceService", "spec.predictor.model.modelFormat", None, "must not be `None`"),
        ("InferenceService", "spec.predictor.model", ["grocer"], "expected V1beta1ModelSpec"),
        ("InferenceService", "spec.predictor.securityContext.fsGroups", 1, "unexpected"),
        ("InferenceService", "spec.predictor.labels", ["a"], "expected a mapping"),
        ("InferenceService", "spec.predictor.deploymentStrategy.type", 1, "is not of type"),
        ("ServingRuntime", "spec.containers", None, "must not be `None`"),
        ("ServingRuntime", "spec.containers", {}, "expected a list"),
        ("ServingRuntime", "spec.containers.0.name", None, "is a required property"),
        ("ServingRuntime", "spec.containers.0.livenessProb", {}, "unexpected"),
        ("ServingRuntime", "spec.protocolVersions", [1], "expected str"),
        ("ServingRuntime", "spec.terminationGracePeriodSeconds", 30, "unknown field"),
        ("ClusterStorageContainer", "spec.supportedUriFormats", None, "must not be `None`"),
        ("NetworkPolicy", "spec.podSelectors", {}, "unexpected"),
        ("PodDisruptionBudget", "spec.maxUnavailable", [1], "is not valid"),
        ("ServiceAccount", "automountServiceAccountToken", "no", "is not of type"),
    ],
)
def test_schema_violation_is_detected(kind: str, path: str, value: Any, error: str) -> None:
    names = {"ServiceAccount": "grocer-serving", "NetworkPolicy": "grocer-dns"}
    manifest = get(build("base/serving"), kind, names.get(kind, "grocer"))
    set_field(manifest, path, value)
    errors = schema_errors(manifest)
    assert any(error in message for message in errors), errors


@pytest.mark.parametrize(
    "version", ["example.com/v1", "serving.kserve.io/v1beta1", "trainer.kubeflow.org/v1alpha1"]
)
def test_unknown_kind_raises(version: str) -> None:
    with pytest.raises(LookupError):
        schema_errors({"apiVersion": version, "kind": "Grocer", "metadata": {"name": "x"}})
