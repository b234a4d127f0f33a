"""Protects what is said when the Kubernetes API refuses, is away, or ends a watch."""

from __future__ import annotations

from pathlib import Path

import pytest

from grocer.errors import DeployError
from grocer.release.bundle import Bundle
from serving.rollout.kubernetes import Cluster
from tests.fixtures.kubernetes_api import Api, refusal

# As Kubernetes 1.36 said them.
CONFLICT = (
    'Apply failed with 2 conflicts: conflicts with "kubectl-edit" using serving.kserve.io/v1beta1:'
    '\n- .spec.predictor.model.storageUri\n- .spec.predictor.model.env[name="GROCER_BUNDLE_DIGEST"]'
    ".value"
)
FORBIDDEN = (
    'inferenceservices.serving.kserve.io "grocer" is forbidden: User "system:serviceaccount:'
    'kubeflow:grocer-pipeline" cannot patch resource "inferenceservices" in API group '
    '"serving.kserve.io" in the namespace "grocer"'
)


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        (
            409,
            CONFLICT,
            r'conflicts with "kubectl-edit".*storageUri - .*; let that manager give up',
        ),
        (403, FORBIDDEN, r"grocer-pipeline\" cannot patch.*; give that account the Role"),
        (400, "admission webhook denied the request: no", r"refused \(400\): admission webhook"),
        (401, "Unauthorized", r"refused \(401\): Unauthorized; log in again"),
    ],
)
def test_what_the_api_refuses_is_one_line(
    api: Api, stub_bundle: Bundle, code: int, message: str, said: str
) -> None:
    api.refusals = [(code, refusal(message))]
    with pytest.raises(DeployError, match=said) as error:
        api.deploy(stub_bundle)
    assert "\n" not in str(error.value)


def test_an_absent_service_and_an_absent_kserve_differ(api: Api, stub_bundle: Bundle) -> None:
    api.service = None
    with pytest.raises(DeployError, match=r'"grocer" not found; apply an overlay of manifests/'):
        api.deploy(stub_bundle)
    api.service = {}
    with pytest.raises(DeployError, match="KServe is not installed"):
        api.deploy(stub_bundle)


def test_no_api_is_one_line(at_once: None, stub_bundle: Bundle) -> None:
    with Api({}) as api:
        cluster = api.cluster
    with pytest.raises(DeployError, match="no Kubernetes API answers at http://127") as error:
        cluster.inference_service("grocer")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("end", ["gone", "broken", "cut"])
def test_a_watch_that_ends_is_begun_anew(api: Api, stub_bundle: Bundle, end: str) -> None:
    api.fates[stub_bundle.digest] = {"status": {}}
    api.watches = [end, "ready"]
    assert api.deploy(stub_bundle, timeout_seconds=60.0)
    assert api.watches == []


def test_a_watch_that_is_forbidden_is_not_begun_anew(api: Api, stub_bundle: Bundle) -> None:
    api.fates[stub_bundle.digest] = {"status": {}}
    api.watches = ["forbidden"]
    with pytest.raises(DeployError, match=r"refused \(403\): .*cannot watch.*Role grocer-deploy"):
        api.deploy(stub_bundle, timeout_seconds=60.0)


def test_a_service_answers_at_its_own_port_or_at_its_pods(api: Api) -> None:
    assert api.cluster.address("grocer-predictor") == "http://grocer-predictor.grocer.svc:80"
    api.headless = True
    assert api.cluster.address("grocer-predictor") == "http://grocer-predictor.grocer.svc:8080"


def test_last_words_are_the_log_as_it_is(api: Api) -> None:
    api.log = '{"level": "error"}\n\n'
    assert api.cluster.last_words("pod", "kserve-container") == '{"level": "error"}'
    api.log = "unable to retrieve container logs for containerd://29"
    assert api.cluster.last_words("pod", "kserve-container") == ""
    api.log = "x" * 1000
    assert len(api.cluster.last_words("pod", "kserve-container")) < 510


def test_without_a_kubeconfig_there_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(DeployError, match=r"no kubeconfig serves \(.*\); set KUBECONFIG"):
        Cluster.connect("grocer")
