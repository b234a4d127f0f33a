"""Waiting for a rollout, and the pod's reason when it fails."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import ApiClient, V1Deployment

from grocer.errors import DeployError
from grocer.release.bundle import LoadedBundle
from serving.rollout import readiness
from tests.fixtures.kubernetes_api import NOT_READY, OLD, Api, container, deployment

# Messages of the kubelet of Kubernetes 1.36 and of KServe's storage initializer.
IMAGE_PULL = (
    'Back-off pulling image "nosuch.invalid/grocer-serve:9": ErrImagePull: failed to pull and '
    'unpack image "nosuch.invalid/grocer-serve:9": failed to resolve reference '
    '"nosuch.invalid/grocer-serve:9": failed to do request: dial tcp: no such host'
)
STORE = (
    "2026-11-25 17:42:41.645 1 storage.initializer ERROR [initializer-entrypoint:<module>():31] "
    "Unexpected error during storage initialization: Could not connect to the endpoint URL: "
    '"http://10.99.0.1:5999/models"\n'
)
FAILURES = {
    "image": (
        {"waiting": "ImagePullBackOff", "message": IMAGE_PULL},
        r"image cannot be pulled \(Back-off .*: no such host\)",
    ),
    "configuration": (
        {"waiting": "CreateContainerConfigError", "message": 'secret "s" not found'},
        r"invalid container configuration \(secret \"s\" not found\)",
    ),
    "memory": (
        {"exit_code": 137, "reason": "OOMKilled"},
        r"OOMKilled; raise its memory limit: grocer: last log line",
    ),
    "rejected bundle": (
        {"exit_code": 2},
        r"rejected its bundle or its configuration: grocer: last log line",
    ),
    "crash loop": (
        {"exit_code": 1, "restarts": 2},
        r"crash loop, exit code 1: grocer: last log line",
    ),
    "termination message": (
        {"exit_code": 2, "log": "INFO\ngrocer: wrong base\n"},
        r"rejected its bundle or its configuration: grocer: wrong base;",
    ),
    "store": (
        {"name": "storage-initializer", "exit_code": 1, "restarts": 2, "log": STORE},
        r"bundle cannot be downloaded .*: .*Could not connect to the endpoint URL",
    ),
}


@pytest.mark.parametrize(("state", "fragments"), FAILURES.values(), ids=FAILURES)
def test_pod_failure_is_reported_and_rolled_back(
    api: Api, stub_bundle: LoadedBundle, state: dict[str, Any], fragments: str
) -> None:
    kind = "initContainerStatuses" if "name" in state else "containerStatuses"
    status = {kind: [container(**state)]}
    api.pod_states[stub_bundle.digest] = {"status": status}
    with pytest.raises(DeployError, match=fragments) as error:
        api.deploy(stub_bundle)
    assert str(error.value).endswith("; rolled back to 000000000000")
    assert api.model["storageUri"] == f"s3://b/{OLD}"


@pytest.mark.parametrize(
    "status",
    [
        {"containerStatuses": [container(exit_code=1, restarts=1)]},
        {"containerStatuses": [container(exit_code=137, reason="OOMKilled", ready=True)]},
        {"phase": "Failed", "containerStatuses": [container(exit_code=1, restarts=5)]},
    ],
    ids=["one crash", "recovered", "replaced pod"],
)
def test_pod_that_may_recover_is_waited_for(
    api: Api, stub_bundle: LoadedBundle, status: dict[str, Any]
) -> None:
    api.pod_states[stub_bundle.digest] = {"status": status}
    with pytest.raises(DeployError, match=r"timed out after 1 s: 0 of 1 pods ready"):
        api.deploy(stub_bundle)


QUOTA = (
    'pods "grocer-predictor-8d4f45b85-rkl8s" is forbidden: exceeded quota: small, requested: '
    "pods=1, used: pods=1, limited: pods=1"
)


def test_exceeded_quota_fails_after_a_grace_period(
    api: Api, stub_bundle: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "REPLICA_FAILURE_SECONDS", 0.0)
    api.pod_states[stub_bundle.digest] = {"replica_failure": QUOTA}
    with pytest.raises(DeployError, match=r"pods cannot be created: .*exceeded quota: small"):
        api.deploy(stub_bundle, timeout_seconds=60.0)


def test_quota_may_be_freed_within_the_grace_period(api: Api, stub_bundle: LoadedBundle) -> None:
    api.pod_states[stub_bundle.digest] = {"replica_failure": QUOTA}
    api.watches = ["ready"]
    assert api.deploy(stub_bundle, timeout_seconds=60.0)


def test_unschedulable_pod_is_reported_at_the_timeout(api: Api, stub_bundle: LoadedBundle) -> None:
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate"
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    api.pod_states[stub_bundle.digest] = {"status": {"conditions": [condition]}}
    with pytest.raises(DeployError, match=r"timed out after 1 s: .*unschedulable: .*nvidia.com"):
        api.deploy(stub_bundle)


def test_timeout_reports_the_last_warning_event(api: Api, stub_bundle: LoadedBundle) -> None:
    api.pod_states[stub_bundle.digest] = NOT_READY
    api.warnings = [
        {"lastTimestamp": "2026-11-25T10:00:02Z", "message": 'secret "s" not found'},
        {"lastTimestamp": "2026-11-25T10:00:01Z", "message": "earlier"},
        {"eventTime": "2026-11-25T09:59:00.000000Z", "message": "first"},
    ]
    with pytest.raises(DeployError, match=r'pods ready \(last warning: secret "s" not found\)'):
        api.deploy(stub_bundle)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({}, "check that its pod is running"),
        (
            {
                "transitionStatus": "InvalidSpec",
                "lastFailureInfo": {"message": "Waiting for runtime to become available"},
            },
            "Waiting for runtime to become available",
        ),
    ],
    ids=["controller is down", "invalid specification"],
)
def test_wait_ends_early_when_controller_does_not_reconcile(
    api: Api,
    stub_bundle: LoadedBundle,
    monkeypatch: pytest.MonkeyPatch,
    status: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.setattr(readiness, "RECONCILE_SECONDS", 0.0)
    api.controller_runs = False
    api.status["modelStatus"] = status
    with pytest.raises(DeployError, match=f"does not update the Deployment: {reason}"):
        api.deploy(stub_bundle, timeout_seconds=600.0)


def typed(**status: int) -> V1Deployment:
    """A Deployment with two replicas."""
    body = deployment("d", replicas=2)
    body = json.dumps(body | {"status": body["status"] | status})
    return ApiClient().deserialize(SimpleNamespace(data=body), "V1Deployment")


@pytest.mark.parametrize(
    "status",
    [{"observedGeneration": 1}, {"updatedReplicas": 1}, {"availableReplicas": 1}, {"replicas": 3}],
    ids=lambda status: next(iter(status)),
)
def test_rollout_is_complete_when_every_status_field_agrees(status: dict[str, int]) -> None:
    complete = typed()
    assert readiness.is_rolled_out(complete)
    assert not readiness.is_rolled_out(complete, replicas=3)
    assert not readiness.is_rolled_out(typed(**status))
