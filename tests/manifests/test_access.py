"""Tests that the pipeline's RBAC grants exactly what its steps use."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kubernetes.client import ApiClient

from grocer.config.deployment import DEPLOY_SECRET, DeployConfig
from grocer.errors import DeployError
from serving.rollout import canary
from serving.rollout import deploy as deploying
from serving.rollout.inference_service import (
    DIGEST_ENV,
    GROUP,
    PLURAL,
    RECORD_ANNOTATION,
    STOP_ANNOTATION,
)
from serving.rollout.progressive import analyse
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.kubernetes_api import CRASHED, OLD, Api, container
from tests.manifests.kustomize import build, get, of_kind

Permissions = set[tuple[str, str, str]]
"""Verb, API group and resource (with subresource)."""
_PATH = re.compile(r"/(?:api|apis/(?P<group>[^/]+))/[^/]+/namespaces/grocer/(?P<rest>.+)")
OBJECTS = build("base/pipeline")
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
    verb = {"GET": read_verb, "PATCH": "patch", "POST": "create"}[method]
    return verb, match["group"] or "", f"{resource}/{subresource}" if subresource else resource


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch, at_once: None) -> Permissions:
    """The permissions of all requests to the Kubernetes API during the test."""
    permissions: Permissions = set()
    request = ApiClient.request

    def record(self: ApiClient, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        permissions.add(required(method, url, kwargs["query_params"]))
        return request(self, method, url, *args, **kwargs)

    monkeypatch.setattr(ApiClient, "request", record)
    return permissions


def test_deploy_role_grants_exactly_what_deploy_uses(used: Permissions, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    with Api({bundle.digest: CRASHED}, first=OLD) as api:
        for pod_state in (CRASHED, PENDING):
            api.pod_states[bundle.digest] = pod_state
            with pytest.raises(DeployError):
                api.deploy(bundle)
        del api.pod_states[bundle.digest]
        analysis = {"canary": [20], "analysis": True, "analysis_seconds": 0.1}
        api.deploy(bundle, **analysis)
        assert not analyse(api.config(**analysis), api.cluster)[-1].promoted
        api.deploy(bundle, canary=20)
        canary.promote(api.config(), api.cluster)
        api.cluster.address("grocer-predictor")
        api.cluster.last_warning("grocer-predictor-x")
    assert used == granted("grocer-deploy")


def test_champion_role_grants_exactly_what_find_champion_uses(used: Permissions) -> None:
    with Api({}, first=OLD) as api:
        deploying.champion(api.config(), api.cluster)
    assert used == granted("grocer-champion")


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


@pytest.mark.parametrize(
    ("role", "account"),
    [
        ("grocer-steps", "grocer-pipeline"),
        ("grocer-champion", "grocer-pipeline"),
        ("grocer-deploy", "grocer-deploy"),
    ],
)
def test_role_is_bound_to_one_account(role: str, account: str) -> None:
    subject = get(OBJECTS, "ServiceAccount", account)["metadata"]
    binding = get(OBJECTS, "RoleBinding", role)
    assert binding["metadata"]["namespace"] == get(OBJECTS, "Role", role)["metadata"]["namespace"]
    assert binding["roleRef"]["name"] == role
    (bound,) = binding["subjects"]
    assert (bound["name"], bound["namespace"]) == (subject["name"], subject["namespace"])


def test_admission_policy_limits_the_account_that_patches() -> None:
    (subject,) = get(OBJECTS, "RoleBinding", "grocer-deploy")["subjects"]
    policy = get(OBJECTS, "ValidatingAdmissionPolicy", "grocer-deploy")["spec"]
    user = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
    (condition,) = policy["matchConditions"]
    assert condition["expression"] == f"request.userInfo.username == '{user}'"
    assert policy["failurePolicy"] == "Fail"
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert (rule["apiGroups"], rule["resources"]) == ([GROUP], [PLURAL])
    text = " ".join(validation["expression"] for validation in policy["validations"])
    for name in (STOP_ANNOTATION, RECORD_ANNOTATION, DIGEST_ENV):
        assert f"'{name}'" in text


@pytest.mark.parametrize(
    ("target", "store"),
    [("overlays/kind", "s3://mlpipeline/bundles"), ("overlays/gke-t4", None)],
)
def test_admission_policy_is_enforced_with_the_configured_store(
    target: str, store: str | None
) -> None:
    objects = build(target)
    binding = get(objects, "ValidatingAdmissionPolicyBinding", "grocer-deploy")["spec"]
    policy = get(objects, "ValidatingAdmissionPolicy", binding["policyName"])["spec"]
    assert binding["validationActions"] == ["Deny"]
    # A missing parameter would deny the changes of all accounts.
    assert "paramKind" not in policy
    assert "paramRef" not in binding
    assert "'grocer-deploy/store'" in str(policy["variables"])
    annotations = get(objects, "Namespace")["metadata"].get("annotations", {})
    assert annotations.get("grocer-deploy/store") == store


def test_no_other_role_exists() -> None:
    roles = {role["metadata"]["name"] for role in of_kind(OBJECTS, "Role")}
    assert roles == {"grocer-steps", "grocer-champion", "grocer-deploy"}


def test_steps_can_read_no_token_of_the_deploy_account() -> None:
    secret = get(OBJECTS, "Secret", DEPLOY_SECRET)["metadata"]
    assert secret["annotations"] == {"kubernetes.io/service-account.name": "grocer-deploy"}
    readable = {
        name
        for role in ("grocer-steps", "grocer-champion")
        for rule in get(OBJECTS, "Role", role)["rules"]
        if "secrets" in rule["resources"]
        for name in rule["resourceNames"]
    }
    assert secret["name"] not in readable
