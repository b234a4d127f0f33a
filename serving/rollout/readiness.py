"""Waits for a predictor's Deployment to serve a bundle, and says why it does not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from grocer.errors import DeployError
from grocer.progress import say
from serving.rollout.inference_service import DIGEST, Served, names, unrecognised
from serving.rollout.kubernetes import Cluster

LABEL = "serving.kserve.io/inferenceservice"
"""Carried, with the InferenceService's name, by all that KServe makes for it."""
CONTAINER = "kserve-container"
TAKE_UP_SECONDS = 120.0
"""How long KServe's controller may take to make of a bundle a Deployment."""
REFUSED_SECONDS = 15.0
"""How long pods may be refused: a Deployment tells a while of refusals that have passed."""
_INITIALIZER = "storage-initializer"
# A container that can't begin: none of these mends itself while the manifests stay as they are.
_NEVER_BEGINS = {
    "ImagePullBackOff": "its image can't be pulled",
    "InvalidImageName": "its image has no valid name",
    "ErrImageNeverPull": "its image is not on the node",
    "CreateContainerConfigError": "its container can't be configured",
    "CreateContainerError": "its container can't be made",
    "RunContainerError": "its container can't be run",
}
_RESTARTS = 2  # of one container, after which another try is not waited for
_Object = Mapping[str, Any]


def wait(
    cluster: Cluster, service: str, bundle: Served, seconds: float, *, replicas: int = 1
) -> None:
    """Return once every pod of the predictor serves `bundle`, and no former one is left.

    Args:
        replicas: how many pods there are to be at least.

    Raises:
        DeployError: it can't come up, or does not within `seconds`; the message has the pod's
            reason and the container's last words.
    """
    name, labels = bundle.deployment(service), f"{LABEL}={service}"
    begun, told, taken_up = time.monotonic(), "", False
    since: float | None = None
    pods: list[dict[str, Any]] = []
    for _ in cluster.looks(labels, seconds):
        deployment = cluster.deployment(name)
        if deployment is not None and serves(deployment, bundle.digest, replicas):
            return
        pods = [pod for pod in cluster.pods(labels) if _digest_of(pod) == bundle.digest]
        if reason := fault(cluster, pods):
            raise DeployError(f"{name}: {reason}")
        refusal = refused(deployment, bundle.digest)
        since = (since or time.monotonic()) if refusal else None
        if since and time.monotonic() - since > REFUSED_SECONDS:
            raise DeployError(f"{name}: {refusal}")
        if (now := progress(deployment, pods, bundle.digest)) != told:
            say("deploy", f"{name}: {now}")
            told = now
        if _taken_up(deployment, bundle.digest):
            taken_up = True
        elif taken_up or time.monotonic() - begun > TAKE_UP_SECONDS:
            break
    if not _taken_up(cluster.deployment(name), bundle.digest):
        made = cluster.inference_service(service)
        if not names(made, bundle):
            raise DeployError(f"{name}: another deploy has taken its place")
        why = unrecognised(made) or "see that its pod runs"
        raise DeployError(f"{name}: KServe's controller does not take up the bundle: {why}")
    warning = cluster.last_warning(pods[0]["metadata"]["name"]) if pods else ""
    last = f" (last warning: {warning})" if warning and warning not in told else ""
    raise DeployError(f"{name}: not rolled out after {seconds:g} s: {told}{last}")


def serves(deployment: _Object, digest: str, replicas: int = 1) -> bool:
    """Whether all of a Deployment's pods are available, of its present template, and of `digest`.

    KServe's own condition Ready stays true through a rollout, so it says nothing here.
    """
    spec, status = deployment["spec"], deployment.get("status") or {}
    wanted = spec.get("replicas", 1)
    return (
        _digest_of(spec["template"]) == digest
        and status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and wanted >= replicas
        and status.get("updatedReplicas", 0) == wanted
        and status.get("availableReplicas", 0) >= wanted
        and status.get("replicas", 0) == wanted
    )


def fault(cluster: Cluster, pods: Sequence[_Object]) -> str:
    """Why one of the pods will not come up, with its last words; empty where none is lost yet."""
    for pod in pods:
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        if "deletionTimestamp" in pod["metadata"] or status.get("phase") == "Failed":
            continue  # gone, and replaced
        for kind in ("initContainerStatuses", "containerStatuses"):
            for container in status.get(kind) or []:
                if reason := _container_fault(container):
                    words = _last_words(cluster, name, container)
                    return f"pod {name}: {reason}" + (f": {words}" if words else "")
    return ""


def _container_fault(container: _Object) -> str:
    """What keeps a container from running, or empty."""
    if container.get("ready"):  # whatever befell it once
        return ""
    waiting = (container.get("state") or {}).get("waiting") or {}
    if waiting.get("reason") in _NEVER_BEGINS:
        return f"{_NEVER_BEGINS[waiting['reason']]} ({waiting.get('message', waiting['reason'])})"
    ended = _end(container)
    if not ended.get("exitCode"):
        return ""
    if ended.get("reason") == "OOMKilled":
        return f"{container['name']} was killed for want of memory (OOMKilled); raise its limit"
    if container["name"] == CONTAINER and ended["exitCode"] == 2:
        return "the predictor refused its bundle or its settings"
    if container.get("restartCount", 0) < _RESTARTS:
        return ""
    if container["name"] == _INITIALIZER:
        return "the bundle can't be fetched from the store"
    return f"{container['name']} ends again and again, with exit code {ended['exitCode']}"


def _end(container: _Object) -> _Object:
    """How a container last ended; empty: it never did."""
    states = (container.get("state") or {}, container.get("lastState") or {})
    return next((state["terminated"] for state in states if state.get("terminated")), {})


def _last_words(cluster: Cluster, pod: str, container: _Object) -> str:
    """The last line that a container said before it ended.

    Its status has it where `terminationMessagePolicy` says so, as manifests/ do; a log may be
    gone by the time that it is asked for.
    """
    ended = _end(container)
    if not ended:
        return ""
    said = [line for line in (ended.get("message") or "").splitlines() if line.strip()]
    return said[-1].strip() if said else cluster.last_words(pod, container["name"])


def refused(deployment: _Object | None, digest: str) -> str:
    """Why no pods can be made (a quota, an admission policy), if that is so."""
    if deployment is None or not _taken_up(deployment, digest):
        return ""
    for condition in (deployment.get("status") or {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return f"pods are refused: {condition.get('message', '')}"
    return ""


def progress(deployment: _Object | None, pods: Sequence[_Object], digest: str) -> str:
    """What is still missing, in words."""
    if deployment is None or not _taken_up(deployment, digest):
        return "waiting for KServe's controller to take up the bundle"
    if refusal := refused(deployment, digest):
        return refusal
    for pod in pods:
        status = pod.get("status") or {}
        for condition in status.get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return f"no node takes the pod: {condition.get('message', '')}"
        if status.get("reason") == "Evicted":
            return f"a pod was evicted: {status.get('message', '')}"
        if any(
            c.get("state", {}).get("running") for c in status.get("initContainerStatuses") or []
        ):
            return "fetching the bundle"
    status = deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas", 1)
    ready = sum(_ready(pod) for pod in pods)
    former = max(0, status.get("replicas", 0) - status.get("updatedReplicas", 0))
    return f"{min(ready, wanted)} of {wanted} pods ready" + (f", {former} former" * bool(former))


def _ready(pod: _Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _taken_up(deployment: _Object | None, digest: str) -> bool:
    """Whether it is the bundle that a Deployment's pods are, or will be, made for."""
    return deployment is not None and _digest_of(deployment["spec"]["template"]) == digest


def _digest_of(pod: _Object) -> str:
    """The digest that a pod, or a template of one, is to serve."""
    for container in pod["spec"]["containers"]:
        for entry in container.get("env") or []:
            if entry["name"] == DIGEST:
                return str(entry.get("value", ""))
    return ""
