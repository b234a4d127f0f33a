"""Protects the pipeline's account: the deploy step may do what it does, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kubernetes.client import ApiClient

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from serving.rollout import canary
from serving.rollout import deploy as deploying
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.kubernetes_api import OLD, Api, container
from tests.manifests.kustomize import build, one

Access = set[tuple[str, str, str]]
_PATH = re.compile(r"/(?:api|apis/(?P<group>[^/]+))/[^/]+/namespaces/grocer/(?P<rest>.+)")
CRASHED = {"status": {"containerStatuses": [container(exit_code=1, restarts=3)]}}
PENDING = {
    "status": {
        "containerStatuses": [container(waiting="ContainerCreating")],
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "no GPU"}],
    }
}


def granted(role: str) -> Access:
    """(verb, API group, resource) for all that a Role lets one do."""
    return {
        (verb, group, resource)
        for rule in one(build("base/pipeline"), "Role", role)["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def asked(method: str, url: str, query: list[tuple[str, object]]) -> tuple[str, str, str]:
    """What an account has to be allowed for a request, as Kubernetes reads it."""
    found = _PATH.fullmatch(urlsplit(url).path)
    assert found, url
    resource, _, name = found["rest"].partition("/")
    name, _, part = name.partition("/")
    reading = "watch" if ("watch", True) in query else "get" if name else "list"
    verb = {"GET": reading, "PATCH": "patch"}[method]
    return verb, found["group"] or "", f"{resource}/{part}" if part else resource


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Access:
    """What is asked of Kubernetes, from now on."""
    seen: Access = set()
    request = ApiClient.request

    def recorded(self: ApiClient, method: str, url: str, *more: Any, **given: Any) -> Any:
        seen.add(asked(method, url, given["query_params"]))
        return request(self, method, url, *more, **given)

    monkeypatch.setattr(ApiClient, "request", recorded)
    monkeypatch.setattr(deploying, "publish", lambda bundle, store: f"{store}/{bundle.digest}")
    monkeypatch.setattr(deploying, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(canary, "SHIFT_SECONDS", 1.0)
    return seen


def test_the_deploy_step_may_do_what_it_does_and_nothing_else(
    requests: Access, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path)
    with Api({bundle.digest: CRASHED}, first=OLD) as api:
        for fate in (CRASHED, PENDING):
            api.pod_states[bundle.digest] = fate
            with pytest.raises(DeployError):
                api.deploy(bundle)
        del api.pod_states[bundle.digest]
        api.deploy(bundle, canary=20)
        canary.promote(api.config(), api.cluster)
        deploying.champion(api.config(), api.cluster)
        api.cluster.address("grocer-predictor")
        api.cluster.last_warning("grocer-predictor-x")
    assert requests == granted("grocer-deploy")


def test_only_our_own_inference_service_may_be_changed() -> None:
    for rule in one(build("base/pipeline"), "Role", "grocer-deploy")["rules"]:
        if "patch" in rule["verbs"]:
            assert rule["resources"] == ["inferenceservices"]
            assert rule["resourceNames"] == [DeployConfig().name]


def test_steps_may_do_what_kubeflow_does_for_them() -> None:
    """Argo's executor reports, the launcher reads its configuration and the artifacts' key."""
    assert granted("grocer-steps") == {
        ("create", "argoproj.io", "workflowtaskresults"),
        ("patch", "argoproj.io", "workflowtaskresults"),
        ("get", "", "configmaps"),
        ("get", "", "secrets"),
    }


def test_roles_are_given_to_the_pipelines_account_alone() -> None:
    objects = build("base/pipeline")
    account = one(objects, "ServiceAccount", "grocer-pipeline")["metadata"]
    for role in (thing for thing in objects if thing["kind"] == "Role"):
        binding = one(objects, "RoleBinding", role["metadata"]["name"])
        assert binding["metadata"]["namespace"] == role["metadata"]["namespace"]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        (subject,) = binding["subjects"]
        assert subject["name"] == account["name"]
        assert subject["namespace"] == account["namespace"]
