"""Protects the deploy step on a cluster: only what answers is deployed, else all is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from grocer.bundle import Bundle
from grocer.errors import DeployError
from grocer.settings import DeployConfig
from serving import deploy as deploying
from serving.deploy import champion, promote, rollback
from tests.serving.kubernetes_api import Api, container, refusal

OLD = "0" * 64
NAMES = ["Organic Bananas"]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has a test of its own; routes need no time to follow."""
    monkeypatch.setattr(deploying, "publish", lambda bundle, store: f"{store}/{bundle.digest}")
    monkeypatch.setattr(deploying, "_SETTLE_SECONDS", 0.0)


def config(api: Api, **more: Any) -> DeployConfig:
    return DeployConfig(store="s3://b", address=api.url, **{"timeout_seconds": 2.0, **more})


def deploy(api: Api, bundle: Bundle, **more: Any) -> list[dict[str, Any]]:
    return deploying.deploy(bundle, config(api, **more), NAMES, api.cluster)


@pytest.fixture
def api(stub_bundle: Bundle) -> Iterator[Api]:
    """A cluster that serves a former bundle, and on which a new one comes up."""
    with Api({}, first=OLD) as made:
        yield made


def model(api: Api) -> dict[str, Any]:
    assert api.service is not None
    found: dict[str, Any] = api.service["spec"]["predictor"]["model"]
    return found


def test_a_bundle_is_rolled_out_and_asked(api: Api, stub_bundle: Bundle) -> None:
    (answer,) = deploy(api, stub_bundle)
    assert answer == {"product_name": NAMES[0], "department": "produce", "probability": 0.9}
    assert model(api)["storageUri"] == f"s3://b/{stub_bundle.digest}"
    assert model(api)["env"] == [{"name": "GROCER_BUNDLE_DIGEST", "value": stub_bundle.digest}]


def test_only_the_fields_of_its_own_are_applied(api: Api, stub_bundle: Bundle) -> None:
    deploy(api, stub_bundle)
    (fields,) = api.applied
    assert set(fields) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(fields["metadata"]) == {"name", "namespace"}
    assert set(fields["spec"]) == {"predictor"}
    assert set(fields["spec"]["predictor"]) == {"model"}


def test_what_serves_already_is_asked_again(stub_bundle: Bundle) -> None:
    with Api({}, first=stub_bundle.digest) as api:
        assert deploy(api, stub_bundle)
        assert model(api)["storageUri"] == f"s3://b/{stub_bundle.digest}"


@pytest.mark.parametrize("end", ["gone", "broken"])
def test_a_watch_that_ends_is_begun_anew(api: Api, stub_bundle: Bundle, end: str) -> None:
    api.fates[stub_bundle.digest] = {"status": {}}
    api.watches = [end]

    def ready_once_watched() -> None:
        while api.watches:
            pass
        api.fates[stub_bundle.digest] = {"ready": True}

    from threading import Thread

    Thread(target=ready_once_watched, daemon=True).start()
    assert deploy(api, stub_bundle, timeout_seconds=20.0)


FAULTS = {
    "image": (
        {"containerStatuses": [container(waiting="ImagePullBackOff", message="no such image")]},
        r"its image can't be pulled \(no such image\)",
    ),
    "configuration": (
        {
            "containerStatuses": [
                container(waiting="CreateContainerConfigError", message='secret "s" not found')
            ]
        },
        r"its container can't be configured \(secret \"s\" not found\)",
    ),
    "memory": (
        {"containerStatuses": [container(ended=137, reason="OOMKilled")]},
        r"was killed for want of memory \(OOMKilled\); raise its limit: grocer: it said why",
    ),
    "refused bundle": (
        {"containerStatuses": [container(ended=2)]},
        r"the predictor refused its bundle or its settings: grocer: it said why",
    ),
    "crash loop": (
        {"containerStatuses": [container(ended=1, restarts=2)]},
        r"ends again and again, with exit code 1: grocer: it said why",
    ),
    "store": (
        {"initContainerStatuses": [container("storage-initializer", ended=1, restarts=2)]},
        r"the bundle can't be fetched from the store: grocer: it said why",
    ),
    "eviction": (
        {"reason": "Evicted", "message": "the node was low on memory"},
        r"was evicted: the node was low on memory",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_the_former_bundle_serves_again(
    api: Api, stub_bundle: Bundle, fault: str
) -> None:
    status, said = FAULTS[fault]
    api.fates[stub_bundle.digest] = {"status": status}
    with pytest.raises(DeployError, match=said) as error:
        deploy(api, stub_bundle)
    assert str(error.value).endswith("; 000000000000 serves again")
    assert model(api)["storageUri"] == f"s3://b/{OLD}"


def test_one_crash_is_waited_out(api: Api, stub_bundle: Bundle) -> None:
    status = {"containerStatuses": [container(ended=1, restarts=1)]}
    api.fates[stub_bundle.digest] = {"status": status}
    with pytest.raises(DeployError, match=r"not rolled out after 2 s: 0 of 1 pods ready"):
        deploy(api, stub_bundle)


def test_pods_that_a_quota_refuses_are_named(api: Api, stub_bundle: Bundle) -> None:
    api.fates[stub_bundle.digest] = {"refused": "exceeded quota: small"}
    with pytest.raises(DeployError, match="pods are refused: exceeded quota: small"):
        deploy(api, stub_bundle)


def test_a_node_may_still_come_until_the_time_is_up(api: Api, stub_bundle: Bundle) -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    api.fates[stub_bundle.digest] = {"status": {"conditions": [condition]}}
    with pytest.raises(
        DeployError, match=r"not rolled out after 2 s: no node takes the pod: .*nvidia.com/gpu"
    ):
        deploy(api, stub_bundle)


def test_a_first_bundle_that_fails_is_stopped(stub_bundle: Bundle) -> None:
    fates = {stub_bundle.digest: {"status": FAULTS["image"][0]}}
    with Api(fates) as api:
        with pytest.raises(DeployError, match="nothing served before, so its pods were stopped"):
            deploy(api, stub_bundle)
        assert api.service is not None
        assert api.service["metadata"]["annotations"] == {"serving.kserve.io/stop": "true"}
        api.fates.clear()
        deploy(api, stub_bundle)
        assert api.service["metadata"]["annotations"] == {}


def test_a_predictor_with_another_digest_is_not_deployed(api: Api, stub_bundle: Bundle) -> None:
    api.answers_with = "f" * 64
    with pytest.raises(DeployError, match=r"serves ffff.*, not .*; 000000000000 serves again"):
        deploy(api, stub_bundle)


def test_a_rollback_that_fails_is_said(api: Api, stub_bundle: Bundle) -> None:
    api.fates |= {stub_bundle.digest: {"status": FAULTS["image"][0]}, OLD: {"status": {}}}
    with pytest.raises(
        DeployError, match=r"pulled .*; and what served before \(0+\) did not come back: .*2 s"
    ):
        deploy(api, stub_bundle)


CONFLICT = (
    'Apply failed with 1 conflict: conflict with "kubectl" using serving.kserve.io/v1beta1: '
    ".spec.predictor.model.storageUri"
)
FORBIDDEN = (
    'inferenceservices.serving.kserve.io "grocer" is forbidden: User "system:serviceaccount:'
    'kubeflow:grocer-pipeline" cannot patch resource "inferenceservices" in the namespace "grocer"'
)


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        (409, CONFLICT, r'conflict with "kubectl".*storageUri; let that manager give up'),
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
        deploy(api, stub_bundle)
    assert "\n" not in str(error.value)


def test_an_absent_service_and_an_absent_kserve_differ(api: Api, stub_bundle: Bundle) -> None:
    api.service = None
    with pytest.raises(DeployError, match=r'"grocer" not found; apply an overlay of manifests/'):
        deploy(api, stub_bundle)
    api.service = {}
    with pytest.raises(DeployError, match="KServe is not installed"):
        deploy(api, stub_bundle)


def test_no_api_is_one_line(api: Api, stub_bundle: Bundle) -> None:
    cluster = api.cluster
    api.shutdown()
    api.server_close()
    with pytest.raises(DeployError, match="no Kubernetes API answers at http://127"):
        deploying.deploy(stub_bundle, DeployConfig(store="s3://b"), NAMES, cluster)


def test_a_canary_stands_beside_what_serves_and_is_promoted(api: Api, stub_bundle: Bundle) -> None:
    api.answers_with = stub_bundle.digest
    deploy(api, stub_bundle, canary=20)
    assert api.service is not None
    (entry,) = api.service["spec"]["canary"]
    assert entry["trafficPercent"] == 20
    part = f"c{stub_bundle.digest[:8]}"
    assert entry["predictor"]["name"] == part
    assert model(api)["storageUri"] == f"s3://b/{OLD}"
    assert champion(config(api), api.cluster) == f"s3://b/{OLD}"

    assert stub_bundle.digest in promote(config(api), api.cluster)
    assert api.service["spec"]["canary"] is None
    assert api.service["spec"]["predictor"]["name"] == part
    assert champion(config(api), api.cluster) == f"s3://b/{stub_bundle.digest}"
    with pytest.raises(DeployError, match="has no canary; deploy one with --canary"):
        promote(config(api), api.cluster)


def test_a_canary_is_rolled_back(api: Api, stub_bundle: Bundle) -> None:
    api.answers_with = stub_bundle.digest
    deploy(api, stub_bundle, canary=20)
    assert "is gone" in rollback(config(api), api.cluster)
    assert api.service is not None
    assert api.service["spec"]["canary"] is None
    assert model(api)["storageUri"] == f"s3://b/{OLD}"
    with pytest.raises(DeployError, match="has no canary"):
        rollback(config(api), api.cluster)


def test_a_canary_that_fails_leaves_what_serves_alone(api: Api, stub_bundle: Bundle) -> None:
    api.fates[stub_bundle.digest] = {"status": FAULTS["memory"][0]}
    with pytest.raises(DeployError, match="000000000000 serves again"):
        deploy(api, stub_bundle, canary=20)
    assert api.service is not None
    assert api.service["spec"]["canary"] is None


def test_before_the_first_deploy_there_is_no_champion() -> None:
    with Api({}) as api:
        assert champion(config(api), api.cluster) == ""
