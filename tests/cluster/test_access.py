"""Protects, on a real authoriser, that the pipeline's account may do what it must and no more.

Needs an API server.
"""

from __future__ import annotations

import pytest

from tests.cluster.api import Api
from tests.cluster.release import Namespaces
from tests.manifests.kustomize import Object, build, one

pytestmark = pytest.mark.cluster

Rule = tuple[str, str, str, str]
KSERVE = "serving.kserve.io"


def _groups(namespace: str) -> list[str]:
    return [
        "system:serviceaccounts",
        f"system:serviceaccounts:{namespace}",
        "system:authenticated",
    ]


def _may(api: Api, names: Namespaces, account: str, **asked: str) -> bool:
    """What the authoriser says of one request."""
    namespace = names.steps if account == "grocer-pipeline" else names.serving
    spec = {
        "user": f"system:serviceaccount:{namespace}:{account}",
        "groups": _groups(namespace),
        "resourceAttributes": asked,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": spec,
    }
    answer = api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


def _granted(rules: list[Object]) -> set[Rule]:
    return {
        (verb, group, resource, name)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for name in rule.get("resourceNames", []) or [""]
    }


def _rules(api: Api, namespace: str, account: str) -> set[Rule]:
    """All that an account of the steps' namespace may do in a namespace."""
    where, _, name = account.rpartition("/")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    headers = {"Impersonate-User": f"system:serviceaccount:{where}:{name}"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    return _granted(api.post(path, review, **headers)["status"]["resourceRules"])


@pytest.mark.parametrize("role", ["grocer-deploy", "grocer-steps"])
def test_the_pipelines_account_has_its_roles_and_no_more(
    role: str, api: Api, ground: Namespaces
) -> None:
    told = one(build("base/pipeline"), "Role", role)
    namespace = ground.renamed(told)["metadata"]["namespace"]
    anybody = _rules(api, namespace, f"{ground.steps}/default")
    ours = _rules(api, namespace, f"{ground.steps}/grocer-pipeline")
    assert ours - anybody == _granted(told["rules"])


@pytest.mark.parametrize(
    ("verb", "group", "resource", "name"),
    [
        ("patch", KSERVE, "inferenceservices", "grocer"),
        ("get", KSERVE, "inferenceservices", "grocer"),
        ("watch", "apps", "deployments", ""),
        ("list", "", "pods", ""),
        ("list", "", "events", ""),
        ("get", "", "services", "grocer-predictor"),
    ],
)
def test_it_may(
    verb: str, group: str, resource: str, name: str, api: Api, ground: Namespaces
) -> None:
    asked = {"namespace": ground.serving, "verb": verb, "group": group, "resource": resource}
    assert _may(api, ground, "grocer-pipeline", name=name, **asked)


@pytest.mark.parametrize(
    ("verb", "group", "resource", "name"),
    [
        ("create", KSERVE, "inferenceservices", ""),
        ("delete", KSERVE, "inferenceservices", "grocer"),
        ("patch", KSERVE, "inferenceservices", "another"),
        ("patch", KSERVE, "servingruntimes", "grocer"),
        ("patch", "apps", "deployments", "grocer-predictor"),
        ("create", "", "pods", ""),
        ("create", "", "pods/exec", ""),
        ("delete", "", "pods", ""),
        ("get", "", "secrets", "grocer-s3"),
        ("list", "", "secrets", ""),
        ("create", "", "serviceaccounts/token", "grocer-serving"),
        ("create", "rbac.authorization.k8s.io", "rolebindings", ""),
    ],
)
def test_it_may_not(
    verb: str, group: str, resource: str, name: str, api: Api, ground: Namespaces
) -> None:
    resource, _, part = resource.partition("/")
    asked = {"verb": verb, "group": group, "resource": resource, "subresource": part, "name": name}
    assert not _may(api, ground, "grocer-pipeline", namespace=ground.serving, **asked)


@pytest.mark.parametrize("namespace", ["", "default", "kube-system"])
def test_it_may_do_nothing_elsewhere(namespace: str, api: Api, ground: Namespaces) -> None:
    for resource in ("pods", "secrets"):
        asked = {"namespace": namespace, "verb": "list", "resource": resource}
        assert not _may(api, ground, "grocer-pipeline", **asked)


def test_the_predictors_account_may_do_nothing(api: Api, ground: Namespaces) -> None:
    anybody = _rules(api, ground.serving, f"{ground.serving}/default")
    assert _rules(api, ground.serving, f"{ground.serving}/grocer-serving") == anybody
