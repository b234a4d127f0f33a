"""Tests of RBAC with the API server's own authorizer. Requires an API server."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from grocer.config.deployment import DeployConfig
from grocer.release.lineage import Version
from serving.rollout.inference_service import (
    FIELD_MANAGER,
    Canary,
    Record,
    Revision,
    State,
    apply_configuration,
)
from tests.cluster.api import Api, allow_store, apply, kubectl, run_kubectl, wait_until
from tests.cluster.bundles import Bundles
from tests.cluster.installation import Namespaces, base_objects
from tests.cluster.pods import DeployStep
from tests.manifests.kustomize import Object, build, get

pytestmark = pytest.mark.cluster

KSERVE = "serving.kserve.io"
Permission = tuple[str, str, str, str]
"""Verb, API group, resource, resource name."""


def _is_allowed(api: Api, namespaces: Namespaces, account: str, **attributes: str) -> bool:
    """Return the result of a SubjectAccessReview for a ServiceAccount of the pipeline."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{namespaces.steps}:{account}",
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{namespaces.steps}",
                "system:authenticated",
            ],
            "resourceAttributes": attributes,
        },
    }
    response = api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(response["status"]["allowed"])


def _permissions(rules: list[Object]) -> set[Permission]:
    return {
        (verb, group, resource, name)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for name in rule.get("resourceNames", []) or [""]
    }


def _effective(api: Api, namespace: str, account: str) -> set[Permission]:
    """Return all permissions of an account, `namespace/name`, in a namespace."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    headers = {"Impersonate-User": f"system:serviceaccount:{account.replace('/', ':')}"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    return _permissions(api.post(path, review, **headers)["status"]["resourceRules"])


@pytest.mark.parametrize(
    ("name", "account"),
    [
        ("grocer-deploy", "grocer-deploy"),
        ("grocer-champion", "grocer-pipeline"),
        ("grocer-steps", "grocer-pipeline"),
    ],
)
def test_account_has_exactly_its_roles(
    name: str, account: str, api: Api, namespaces: Namespaces
) -> None:
    role = get(build("base/pipeline"), "Role", name)
    namespace = namespaces.rename(role)["metadata"]["namespace"]
    default = _effective(api, namespace, f"{namespaces.steps}/default")
    effective = _effective(api, namespace, f"{namespaces.steps}/{account}")
    assert effective - default == _permissions(role["rules"])


@pytest.mark.parametrize(
    ("verb", "group", "resource", "name", "allowed"),
    [
        ("patch", KSERVE, "inferenceservices", "grocer", True),
        ("get", KSERVE, "inferenceservices", "grocer", True),
        ("watch", "apps", "deployments", "", True),
        ("list", "", "pods", "", True),
        ("list", "", "events", "", True),
        ("get", "", "services", "grocer-predictor", True),
        ("create", KSERVE, "inferenceservices", "", False),
        ("delete", KSERVE, "inferenceservices", "grocer", False),
        ("patch", KSERVE, "inferenceservices", "another", False),
        ("patch", KSERVE, "servingruntimes", "grocer", False),
        ("patch", "apps", "deployments", "grocer-predictor", False),
        ("create", "", "pods", "", False),
        ("create", "", "pods/exec", "", False),
        ("delete", "", "pods", "", False),
        ("get", "", "secrets", "grocer-s3", False),
        ("list", "", "secrets", "", False),
        ("create", "", "serviceaccounts/token", "grocer-serving", False),
        ("create", "rbac.authorization.k8s.io", "rolebindings", "", False),
    ],
)
def test_deploy_account_in_the_serving_namespace(
    verb: str, group: str, resource: str, name: str, allowed: bool, api: Api, namespaces: Namespaces
) -> None:
    resource, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": resource, "name": name}
    attributes |= {"subresource": subresource, "namespace": namespaces.serving}
    assert _is_allowed(api, namespaces, "grocer-deploy", **attributes) is allowed


def test_deploy_account_can_make_every_change_of_a_rollout(deploy_step: DeployStep) -> None:
    names, config = deploy_step.namespaces, DeployConfig(store=deploy_step.store)
    old, new = (
        Revision(f"{config.store}/{digest}", digest, config.name, name, Record(State()))
        for digest, name in (("a" * 64, ""), ("b" * 64, "cbbbbbbbb"))
    )
    states = [State(old), State(old, Canary(new, 20)), State(old, Canary(new, 100, 1)), State(new)]
    registered = replace(new, version=Version("1", "2"))
    for state in [*states, State(registered), State(new, stopped=True)]:
        result = _try_state(names, config, state)
        assert result.returncode == 0, result.stderr


def test_bundles_of_an_oci_store_are_tags(deploy_step: DeployStep) -> None:
    names, digest, store = deploy_step.namespaces, "a" * 64, "oci://registry.example/bundles"
    with _store(deploy_step, store):
        wait_until("the new store", lambda: not _denied(names, f"{store}:{digest}", digest), 30)
        assert _denied(names, f"{store}/{digest}", digest)
        assert _denied(names, f"oci://registry.example/others:{digest}", digest)
        assert _denied(names, f"{store}:{'b' * 64}", digest)


def test_no_bundle_is_allowed_without_a_store(deploy_step: DeployStep) -> None:
    names, digest = deploy_step.namespaces, "a" * 64
    uri = f"{deploy_step.store}/{digest}"
    assert not _denied(names, uri, digest)
    with _store(deploy_step, ""):
        reason = wait_until("the store is removed", lambda: _denied(names, uri, digest), 30)
        assert names.policy in reason
        assert "grocer-deploy/store" in reason
        assert _denied(names, f"/{digest}", digest)


@pytest.mark.timeout(600)
def test_namespace_with_a_served_bundle_can_be_deleted(
    install: Callable[..., DeployStep],
    new_namespaces: Callable[[], Namespaces],
    bundles: Bundles,
) -> None:
    names = new_namespaces()
    apply(base_objects(names))
    assert install(names, "overlays/kind").run(bundles.first).exit_code == 0
    kubectl("delete", "namespace", names.serving, "--timeout=180s", timeout=200)


@contextmanager
def _store(step: DeployStep, store: str) -> Iterator[None]:
    """Allow only another store to the deploy account meanwhile, or none."""
    allow_store(step.namespaces.serving, store)
    try:
        yield
    finally:
        allow_store(step.namespaces.serving, step.store)


def _denied(names: Namespaces, uri: str, digest: str) -> str:
    """Return why the deploy account cannot deploy a bundle, or an empty string."""
    config = DeployConfig()
    revision = Revision(uri, digest, config.name, "", Record(State()))
    return _try_state(names, config, State(revision)).stderr


def _try_state(
    names: Namespaces, config: DeployConfig, state: State
) -> subprocess.CompletedProcess[str]:
    """Apply a state with the deploy account, as a dry run."""
    body = names.rename(apply_configuration(config, state))
    options = (f"--field-manager={FIELD_MANAGER}", "--as", _account(names), "--dry-run=server")
    return run_kubectl("apply", "--server-side", *options, "-f", "-", stdin=json.dumps(body))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/metadata/labels/evil", "true"),
        ("/metadata/annotations/evil", "true"),
        ("/spec/transformer", {"containers": [{"name": "t", "image": "evil"}]}),
        ("/spec/predictor/serviceAccountName", "default"),
        ("/spec/predictor/containers", [{"name": "kserve-container", "image": "evil"}]),
        ("/spec/predictor/model/image", "evil"),
        ("/spec/predictor/model/storageUri", "s3://evil/model"),
    ],
)
def test_deploy_account_cannot_change_other_fields(
    path: str, value: object, deploy_step: DeployStep
) -> None:
    names = deploy_step.namespaces
    patch = json.dumps([{"op": "add", "path": path, "value": value}])
    target = ("patch", "inferenceservice", "grocer", "-n", names.serving, "--as", _account(names))
    result = run_kubectl(*target, "--type=json", "-p", patch, "--dry-run=server")
    assert result.returncode != 0
    assert names.policy in result.stderr


def _account(names: Namespaces) -> str:
    return f"system:serviceaccount:{names.steps}:grocer-deploy"


@pytest.mark.parametrize(("verb", "allowed"), [("get", True), ("patch", False)])
def test_other_steps_only_read_which_bundle_is_deployed(
    verb: str, allowed: bool, api: Api, namespaces: Namespaces
) -> None:
    attributes = {"group": KSERVE, "resource": "inferenceservices", "name": "grocer"}
    attributes |= {"verb": verb, "namespace": namespaces.serving}
    assert _is_allowed(api, namespaces, "grocer-pipeline", **attributes) is allowed


@pytest.mark.parametrize("account", ["grocer-pipeline", "grocer-deploy"])
@pytest.mark.parametrize("resource", ["pods", "secrets"])
@pytest.mark.parametrize("namespace", ["", "default", "kube-system"])
def test_accounts_have_no_access_elsewhere(
    namespace: str, resource: str, account: str, api: Api, namespaces: Namespaces
) -> None:
    attributes = {"namespace": namespace, "verb": "list", "resource": resource}
    assert not _is_allowed(api, namespaces, account, **attributes)


def test_predictor_account_has_no_permissions(api: Api, namespaces: Namespaces) -> None:
    default = _effective(api, namespaces.serving, f"{namespaces.serving}/default")
    account = _effective(api, namespaces.serving, f"{namespaces.serving}/grocer-serving")
    assert account == default
