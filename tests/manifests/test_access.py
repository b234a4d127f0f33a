"""Tests that the pipeline's RBAC grants exactly what its steps use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kubernetes.client import ApiClient

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from serving.rollout import canary, traffic
from serving.rollout import deploy as deploying
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.kubernetes_api import OLD, Api, container
from tests.manifests.kustomize import build, get

Permissions = set[tuple[str, str, str]]
"""Verb, API group and resource (with subresource)."""
_PATH = re.compile(r"/(?:api|apis/(?P<group>[^/]+))/[^/]+/namespaces/grocer/(?P<rest>.+)")
OBJECTS = build("base/pipeline")
CRASHED = {"status": {"containerStatuses": [container(exit_code=1, restarts=3)]}}
PENDING = {
    "status": {
        "containerStatuses": [container(waiting="ContainerCreating")],
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "no GPU"}],
    }
}


def granted(role: str) -> Permissions:
    return {
        (verb, group, resource)
        for rule in get(OBJECTS, "Role", role)["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def required(method: str, url: str, query: list[tuple[str, object]]) -> tuple[str, str, str]:
    """Return the permission that the API server checks for a request."""
    match = _PATH.fullmatch(urlsplit(url).path)
    assert match, url
    resource, _, rest = match["rest"].partition("/")
    name, _, subresource = rest.partition("/")
    read_verb = "watch" if ("watch", True) in query else "get" if name else "list"
    verb = {"GET": read_verb, "PATCH": "patch"}[method]
    return verb, match["group"] or "", f"{resource}/{subresource}" if subresource else resource


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Permissions:
    """The permissions of all requests to the Kubernetes API during the test."""
    permissions: Permissions = set()
    request = ApiClient.request

    def record(self: ApiClient, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        permissions.add(required(method, url, kwargs["query_params"]))
        return request(self, method, url, *args, **kwargs)

    monkeypatch.setattr(ApiClient, "request", record)
    monkeypatch.setattr(deploying, "publish", lambda bundle, store: f"{store}/{bundle.digest}")
    monkeypatch.setattr(deploying, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(traffic, "SHIFT_SECONDS", 1.0)
    return permissions


def test_deploy_role_grants_exactly_what_deploy_uses(used: Permissions, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    with Api({bundle.digest: CRASHED}, first=OLD) as api:
        for pod_state in (CRASHED, PENDING):
            api.pod_states[bundle.digest] = pod_state
            with pytest.raises(DeployError):
                api.deploy(bundle)
        del api.pod_states[bundle.digest]
        api.deploy(bundle, canary=20)
        canary.promote(api.config(), api.cluster)
        deploying.champion(api.config(), api.cluster)
        api.cluster.address("grocer-predictor")
        api.cluster.last_warning("grocer-predictor-x")
    assert used == granted("grocer-deploy")


def test_deploy_role_patches_one_inference_service_only() -> None:
    for rule in get(OBJECTS, "Role", "grocer-deploy")["rules"]:
        if "patch" in rule["verbs"]:
            assert rule["resources"] == ["inferenceservices"]
            assert rule["resourceNames"] == [DeployConfig().name]


def test_steps_role_grants_what_argo_and_kfp_need() -> None:
    assert granted("grocer-steps") == {
        ("create", "argoproj.io", "workflowtaskresults"),
        ("patch", "argoproj.io", "workflowtaskresults"),
        ("get", "", "configmaps"),
        ("get", "", "secrets"),
    }


def test_roles_are_bound_to_the_pipeline_account_only() -> None:
    account = get(OBJECTS, "ServiceAccount", "grocer-pipeline")["metadata"]
    for role in (manifest for manifest in OBJECTS if manifest["kind"] == "Role"):
        binding = get(OBJECTS, "RoleBinding", role["metadata"]["name"])
        assert binding["metadata"]["namespace"] == role["metadata"]["namespace"]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        (subject,) = binding["subjects"]
        assert subject["name"] == account["name"]
        assert subject["namespace"] == account["namespace"]
