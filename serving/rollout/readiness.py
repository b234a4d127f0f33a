"""Wait until a predictor's Deployment serves a bundle, and explain failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kubernetes.client import (
    V1ContainerStateTerminated,
    V1ContainerStatus,
    V1Deployment,
    V1Pod,
    V1PodTemplateSpec,
)

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from grocer.progress import say
from serving.rollout.inference_service import DIGEST_ENV, Revision, read_state, spec_error
from serving.rollout.kubernetes import Cluster

LABEL = "serving.kserve.io/inferenceservice"
"""Label, with the InferenceService's name, of every object that KServe creates for it."""
CONTAINER = "kserve-container"
RECONCILE_SECONDS = 120.0
"""How long KServe's controller may take to update the Deployment."""
REPLICA_FAILURE_SECONDS = 15.0
"""How long pod creation may fail: the condition outlives its cause by some seconds."""
_INITIALIZER = "storage-initializer"
# Reasons of a waiting container that no retry resolves while the manifests stay unchanged.
_CANNOT_START = {
    "ImagePullBackOff": "image cannot be pulled",
    "InvalidImageName": "invalid image name",
    "ErrImageNeverPull": "image is not on the node",
    "CreateContainerConfigError": "invalid container configuration",
    "CreateContainerError": "container cannot be created",
    "RunContainerError": "container cannot be started",
}
_MAX_RESTARTS = 2


def wait_until_ready(
    cluster: Cluster,
    config: DeployConfig,
    revision: Revision,
    *,
    replicas: int = 1,
    wake: Callable[[], None] | None = None,
) -> None:
    """Wait until all pods of the predictor serve `revision` and no older pod is left.

    Args:
        replicas: minimum number of pods.
        wake: called, every few seconds, while the Deployment is scaled to zero.

    Raises:
        DeployError: it cannot start, or `config.timeout_seconds` passed. The message has the pod's
            reason and the container's last log line.
    """
    name, selector = revision.deployment(config.name), f"{LABEL}={config.name}"
    start, failing_since, reconciled, progress = time.monotonic(), None, False, ""
    deployment: V1Deployment | None = None
    pods: list[V1Pod] = []
    for _ in cluster.watch_deployments(selector, config.timeout_seconds):
        deployment = cluster.deployment(name)
        if deployment and bundle_digest(deployment.spec.template) != revision.digest:
            deployment = None  # not updated yet
        if deployment and is_rolled_out(deployment, replicas):
            return
        if wake and deployment and not deployment.spec.replicas:
            wake()
        pods = [pod for pod in cluster.pods(selector) if bundle_digest(pod) == revision.digest]
        if failure := pod_failure(cluster, pods):
            raise DeployError(f"{name}: {failure}")
        failure = replica_failure(deployment)
        failing_since = (failing_since or time.monotonic()) if failure else None
        if failing_since and time.monotonic() - failing_since > REPLICA_FAILURE_SECONDS:
            raise DeployError(f"{name}: {failure}")
        if (current := failure or rollout_progress(deployment, pods)) != progress:
            say("deploy", f"{name}: {current}")
            progress = current
        if deployment:
            reconciled = True
        elif reconciled or time.monotonic() - start > RECONCILE_SECONDS:
            break
    if deployment is None:
        raise DeployError(f"{name}: {_reconcile_failure(cluster, config.name, revision)}")
    warning = cluster.last_warning(pods[0].metadata.name) if pods else ""
    last = f" (last warning: {warning})" if warning and warning not in progress else ""
    raise DeployError(
        f"{name}: rollout timed out after {config.timeout_seconds:g} s: {progress}{last}"
    )


def is_rolled_out(deployment: V1Deployment, replicas: int = 1) -> bool:
    """Return whether a Deployment has only pods of its current template, all available.

    The Ready condition of an InferenceService stays true during a rollout, so it cannot be used.
    """
    spec, status = deployment.spec, deployment.status
    return (
        (status.observed_generation or 0) >= deployment.metadata.generation
        and spec.replicas >= replicas
        and (status.updated_replicas or 0) == spec.replicas
        and (status.available_replicas or 0) >= spec.replicas
        and (status.replicas or 0) == spec.replicas
    )


def pod_failure(cluster: Cluster, pods: Sequence[V1Pod]) -> str:
    """Return why one of the pods cannot become ready, or an empty string."""
    for pod in pods:
        name, status = pod.metadata.name, pod.status
        if pod.metadata.deletion_timestamp or status.phase == "Failed":
            continue  # its Deployment replaces it
        init, main = status.init_container_statuses or [], status.container_statuses or []
        for container in (*init, *main):
            if failure := _container_failure(container):
                line = _last_line(cluster, name, container)
                return f"pod {name}: {failure}" + (f": {line}" if line else "")
    return ""


def _container_failure(container: V1ContainerStatus) -> str:
    if container.ready:  # it recovered from earlier failures
        return ""
    if container.state and (waiting := container.state.waiting) and waiting.reason in _CANNOT_START:
        return f"{_CANNOT_START[waiting.reason]} ({waiting.message or waiting.reason})"
    terminated = _terminated(container)
    if not terminated or not terminated.exit_code:
        return ""
    if terminated.reason == "OOMKilled":
        return f"{container.name}: OOMKilled; raise its memory limit"
    if container.name == CONTAINER and terminated.exit_code == 2:
        return "the predictor rejected its bundle or its configuration"
    if container.restart_count < _MAX_RESTARTS:
        return ""
    if container.name == _INITIALIZER:
        return "the bundle cannot be downloaded from the store"
    return f"{container.name}: crash loop, exit code {terminated.exit_code}"


def _terminated(container: V1ContainerStatus) -> V1ContainerStateTerminated | None:
    """Return the state in which a container last terminated, or None."""
    states = (container.state, container.last_state)
    return next((state.terminated for state in states if state and state.terminated), None)


def _last_line(cluster: Cluster, pod: str, container: V1ContainerStatus) -> str:
    """Return the last line that a container wrote before it terminated.

    The termination message has it where `terminationMessagePolicy` is FallbackToLogsOnError, as
    in manifests/; the log itself may be deleted already.
    """
    if not (terminated := _terminated(container)):
        return ""
    lines = (terminated.message or "").strip().splitlines()
    return lines[-1].strip() if lines else cluster.last_log_line(pod, container.name)


def replica_failure(deployment: V1Deployment | None) -> str:
    """Return why pods cannot be created (quota, admission policy), or an empty string."""
    for condition in (deployment and deployment.status.conditions) or []:
        if condition.type == "ReplicaFailure" and condition.status == "True":
            return f"pods cannot be created: {condition.message}"
    return ""


def rollout_progress(deployment: V1Deployment | None, pods: Sequence[V1Pod]) -> str:
    """Return one line on what a rollout is waiting for."""
    if deployment is None:
        return "waiting for KServe's controller to update the Deployment"
    ready = 0
    for pod in pods:
        for condition in pod.status.conditions or []:
            if condition.type == "PodScheduled" and condition.status == "False":
                return f"pod is unschedulable: {condition.message}"
            ready += condition.type == "Ready" and condition.status == "True"
        if pod.status.reason == "Evicted":
            return f"pod was evicted: {pod.status.message}"
        if any(c.state and c.state.running for c in pod.status.init_container_statuses or []):
            return "downloading the bundle"
    replicas, status = deployment.spec.replicas, deployment.status
    outdated = max(0, (status.replicas or 0) - (status.updated_replicas or 0))
    suffix = f", {outdated} outdated" if outdated else ""
    return f"{min(ready, replicas)} of {replicas} pods ready{suffix}"


def _reconcile_failure(cluster: Cluster, service: str, revision: Revision) -> str:
    """Return why the Deployment was not updated to the applied revision."""
    current = cluster.inference_service(service)
    if revision not in read_state(current).revisions:
        return "another deploy has replaced this revision"
    reason = spec_error(current) or "check that its pod is running"
    return f"KServe's controller does not update the Deployment: {reason}"


def bundle_digest(pod: V1Pod | V1PodTemplateSpec) -> str:
    """Return the bundle digest that a pod or pod template is configured for."""
    for container in pod.spec.containers:
        for variable in container.env or []:
            if variable.name == DIGEST_ENV:
                return str(variable.value or "")
    return ""
