"""Protects how a rollout is waited for, and that a failure is told with the pod's own reason."""

from __future__ import annotations

from typing import Any

import pytest

from grocer.errors import DeployError
from grocer.release.bundle import Bundle
from serving.rollout import readiness as rollout
from tests.fixtures.kubernetes_api import OLD, Api, container

# As the kubelet of Kubernetes 1.36 said it.
NO_IMAGE = (
    'Back-off pulling image "nosuch.invalid/grocer-serve:9": ErrImagePull: failed to pull and '
    'unpack image "nosuch.invalid/grocer-serve:9": failed to resolve reference '
    '"nosuch.invalid/grocer-serve:9": failed to do request: dial tcp: no such host'
)
NO_STORE = (
    "2026-11-25 17:42:41.645 1 storage.initializer ERROR [initializer-entrypoint:<module>():31] "
    "Unexpected error during storage initialization: Could not connect to the endpoint URL: "
    '"http://10.99.0.1:5999/models"\n'
)
FAULTS = {
    "image": (
        {"containerStatuses": [container(waiting="ImagePullBackOff", message=NO_IMAGE)]},
        r"its image can't be pulled \(Back-off .*: no such host\)",
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
    "log in the status": (
        {"containerStatuses": [container(ended=2, said="INFO\ngrocer: not its base\n")]},
        r"the predictor refused its bundle or its settings: grocer: not its base;",
    ),
    "store": (
        {
            "initContainerStatuses": [
                container("storage-initializer", ended=1, restarts=2, said=NO_STORE)
            ]
        },
        r"the bundle can't be fetched from the store: .*Could not connect to the endpoint URL",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_the_former_bundle_serves_again(
    api: Api, stub_bundle: Bundle, fault: str
) -> None:
    status, said = FAULTS[fault]
    api.fates[stub_bundle.digest] = {"status": status}
    with pytest.raises(DeployError, match=said) as error:
        api.deploy(stub_bundle)
    assert str(error.value).endswith("; 000000000000 serves again")
    assert api.model["storageUri"] == f"s3://b/{OLD}"


@pytest.mark.parametrize(
    "status",
    [
        {"containerStatuses": [container(ended=1, restarts=1)]},
        {"containerStatuses": [container(ended=137, reason="OOMKilled", ready=True)]},
        {"phase": "Failed", "containerStatuses": [container(ended=1, restarts=5)]},
    ],
    ids=["one crash", "lived through it", "was replaced"],
)
def test_what_may_still_come_up_is_waited_for(
    api: Api, stub_bundle: Bundle, status: dict[str, Any]
) -> None:
    api.fates[stub_bundle.digest] = {"status": status}
    with pytest.raises(DeployError, match=r"not rolled out after 1 s: 0 of 1 pods ready"):
        api.deploy(stub_bundle)


QUOTA = (
    'pods "grocer-predictor-8d4f45b85-rkl8s" is forbidden: exceeded quota: small, requested: '
    "pods=1, used: pods=1, limited: pods=1"
)


def test_pods_that_are_still_refused_after_a_while_are_given_up(
    api: Api, stub_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "REFUSED_SECONDS", 0.0)
    api.fates[stub_bundle.digest] = {"refused": QUOTA}
    with pytest.raises(DeployError, match=r"predictor: pods are refused: .*exceeded quota: small"):
        api.deploy(stub_bundle, timeout_seconds=60.0)


def test_pods_that_were_refused_may_still_come_up(api: Api, stub_bundle: Bundle) -> None:
    api.fates[stub_bundle.digest] = {"refused": QUOTA}
    api.watches = ["ready"]
    assert api.deploy(stub_bundle, timeout_seconds=60.0)


def test_a_node_may_still_come_until_the_time_is_up(api: Api, stub_bundle: Bundle) -> None:
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate"
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    api.fates[stub_bundle.digest] = {"status": {"conditions": [condition]}}
    with pytest.raises(
        DeployError, match=r"not rolled out after 1 s: no node takes the pod: .*nvidia.com/gpu"
    ):
        api.deploy(stub_bundle)


def test_what_kubernetes_last_complained_of_is_told(api: Api, stub_bundle: Bundle) -> None:
    api.fates[stub_bundle.digest] = {"status": {}}
    api.warnings = [
        {"lastTimestamp": "2026-11-25T10:00:02Z", "message": 'secret "s" not found'},
        {"lastTimestamp": "2026-11-25T10:00:01Z", "message": "before that"},
    ]
    with pytest.raises(DeployError, match=r'pods ready \(last warning: secret "s" not found\)'):
        api.deploy(stub_bundle)


def test_a_controller_that_does_nothing_is_not_waited_for_to_the_end(
    api: Api, stub_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "TAKE_UP_SECONDS", 0.0)
    api.controller_runs = False
    with pytest.raises(DeployError, match="does not take up the bundle: see that its pod runs"):
        api.deploy(stub_bundle, timeout_seconds=600.0)


def test_what_the_controller_finds_wrong_is_told(
    api: Api, stub_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "TAKE_UP_SECONDS", 0.0)
    api.controller_runs = False
    info = {"message": "Waiting for runtime to become available"}
    api.status["modelStatus"] = {"transitionStatus": "InvalidSpec", "lastFailureInfo": info}
    with pytest.raises(DeployError, match="take up the bundle: Waiting for runtime to become"):
        api.deploy(stub_bundle, timeout_seconds=600.0)


@pytest.mark.parametrize(
    "status",
    [
        {"observedGeneration": 1},
        {"updatedReplicas": 1},
        {"availableReplicas": 1},
        {"replicas": 3},
    ],
    ids=lambda status: next(iter(status)),
)
def test_a_rollout_is_complete_only_in_every_respect(status: dict[str, int]) -> None:
    env = [{"name": "GROCER_BUNDLE_DIGEST", "value": "d"}]
    template = {"spec": {"containers": [{"name": "kserve-container", "env": env}]}}
    whole = {"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2, "replicas": 2}
    deployment = {
        "metadata": {"generation": 2},
        "spec": {"replicas": 2, "template": template},
        "status": whole,
    }
    assert rollout.serves(deployment, "d")
    assert not rollout.serves(deployment, "d", replicas=3)
    assert not rollout.serves(deployment, "former")
    assert not rollout.serves({**deployment, "status": {**whole, **status}}, "d")
