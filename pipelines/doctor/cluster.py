"""Check a cluster: the Kubernetes API, KServe, trusted keys, Trainer, Kueue and Pipelines."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import trainjob
from grocer.config.deployment import TRUST_CONFIG, DeployConfig
from grocer.errors import ConfigError, DeployError
from pipelines.doctor.report import Finding, failed, ok, optional, probe
from pipelines.kubeflow.client import Server
from serving.rollout.api_errors import describe_error
from serving.rollout.inference_service import GROUP, MIN_KSERVE

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

MIN_KUBERNETES = (1, 32)
"""The versions in kind/versions require it."""
RESOURCES = {"v1alpha1": "servingruntimes", "v1beta1": "inferenceservices"}
"""KServe's custom resources that manifests/ and deploy use, by version."""
_KUBERNETES, _KSERVE, _CONTROLLER = "Kubernetes", "KServe", "KServe's controller"
_TRUST, _KUBEFLOW = "Trusted keys", "Kubeflow Pipelines"
_TRAINER, _QUEUE = "Kubeflow Trainer", "Kueue"
_PROCESSES = "docs/cluster.md#training-in-several-processes"
_NAMESPACE = DeployConfig().namespace
_SIGNATURES = "docs/cluster.md#signatures-and-gate-policy"
_REQUEST_SECONDS = 4
_CLUSTER_INFO = "kubectl cluster-info"
_FORWARD = (
    "kubectl -n kubeflow port-forward service/ml-pipeline 8888, and --host http://127.0.0.1:8888"
)


def cluster(namespace: str = "kubeflow", queue: str | None = None) -> list[Finding]:
    """Check the cluster of the pod or of the kubeconfig, and what Grocer uses in it.

    If KUBECONFIG is set, every failed check is of something needed.

    Args:
        namespace: of the pipeline's steps.
        queue: LocalQueue that must exist there.
    """
    action = partial(_cluster, namespace, queue)
    findings = probe(_KUBERNETES, "kubernetes", "serve", action, _CLUSTER_INFO)
    if len(findings) == 1:
        next_step = "connect to a cluster first" if findings[0].state == "failed" else ""
        findings.append(Finding(_KSERVE, "not checked", findings[0].state, next_step))
    if queue and findings[-1].what != _QUEUE:
        findings.append(failed(_QUEUE, "not checked", "fix the checks above", needed=True))
    if os.environ.get("KUBECONFIG"):
        findings = [replace(each, needed=each.state == "failed") for each in findings]
    return findings


def _cluster(namespace: str, queue: str | None) -> list[Finding]:
    from serving.rollout.kubernetes import NoKubeconfigError, connect

    try:
        api, identity = connect(retries=0)
    except NoKubeconfigError:
        next_step = "set KUBECONFIG, or create a cluster: docs/cluster.md#kind"
        return [optional(_KUBERNETES, "no kubeconfig, and not in a pod", next_step)]
    except DeployError as error:
        return [failed(_KUBERNETES, str(error), "kubectl config view")]
    findings = list[Finding]()
    with api:
        for what, check in (
            (_KUBERNETES, partial(_version, identity)),
            (_KSERVE, _custom_resources),
            (_CONTROLLER, _controller),
            (_TRUST, _trust),
            (_TRAINER, partial(_trainer, namespace)),
            *([(_QUEUE, partial(_queue, namespace, queue))] if queue else []),
        ):
            findings.append(_explain_errors(what, check, api))
            if findings[-1].state == "failed":
                break
    return findings


def _explain_errors(what: str, check: Callable[[ApiClient], Finding], api: ApiClient) -> Finding:
    """Return the check's finding, or a finding for the API's error."""
    import urllib3
    from kubernetes.client.exceptions import ApiException

    try:
        return check(api)
    except (ApiException, urllib3.exceptions.HTTPError) as error:
        code = getattr(error, "status", None)
        if what == _CONTROLLER and code == 404:
            return failed(what, "not in namespace kserve", "kubectl get pods -A | grep kserve")
        if what == _TRUST and code == 404:
            where = f"no ConfigMap {TRUST_CONFIG} in namespace {_NAMESPACE}"
            return optional(what, f"{where}; the overlays' predictors require it", _SIGNATURES)
        if what == _TRAINER and code == 404:
            is_installed = "details" in (error.body or "")
            found = "no TrainingRuntime of manifests/trainer" if is_installed else "not installed"
            return optional(what, f"{found}; needed to train in several processes", _PROCESSES)
        if what == _QUEUE and code == 404:
            return failed(what, describe_error(error, "the cluster"), _PROCESSES, needed=True)
        if code == 403 and what not in (_KUBERNETES, _KSERVE):
            return optional(what, "not checked: no read access to its namespace")
        next_step = "check your login: kubectl auth whoami" if code else _CLUSTER_INFO
        return failed(what, describe_error(error, api.configuration.host), next_step)


def _version(identity: str, api: ApiClient) -> Finding:
    from kubernetes.client import VersionApi

    version = VersionApi(api).get_code(_request_timeout=_REQUEST_SECONDS)
    text = f"{identity}, {version.git_version}"
    if (int(version.major), int(version.minor.rstrip("+"))) >= MIN_KUBERNETES:
        return ok(_KUBERNETES, text)
    required = ".".join(map(str, MIN_KUBERNETES))
    return failed(_KUBERNETES, text, f"upgrade to {required}: docs/cluster.md#prerequisites")


def _custom_resources(api: ApiClient) -> Finding:
    """Check that the cluster serves the custom resources that Grocer uses."""
    from kubernetes.client import CustomObjectsApi
    from kubernetes.client.exceptions import ApiException

    missing, objects = [], CustomObjectsApi(api)
    for version, name in RESOURCES.items():
        try:
            found = objects.get_api_resources(GROUP, version, _request_timeout=_REQUEST_SECONDS)
            names = {resource.name for resource in found.resources}
        except ApiException as error:
            if error.status != 404:
                raise
            names = set()
        if name not in names:
            missing.append(f"{name} {version}")
    if missing:
        next_step = "install the version of kind/versions: docs/cluster.md"
        return failed(_KSERVE, f"{GROUP}: {', '.join(missing)} not installed", next_step)
    return ok(_KSERVE, f"{GROUP}: " + ", ".join(f"{n} {v}" for v, n in RESOURCES.items()))


def _controller(api: ApiClient) -> Finding:
    """Check that a pod of KServe's controller is available."""
    from kubernetes.client import AppsV1Api

    deployment = AppsV1Api(api).read_namespaced_deployment(
        "kserve-controller-manager", "kserve", _request_timeout=_REQUEST_SECONDS
    )
    containers = deployment.spec.template.spec.containers
    images = [container.image for container in containers if container.name == "manager"]
    image = (images or [containers[0].image])[0].rpartition("/")[2]
    version = re.search(r":v(\d+)\.(\d+)", image)
    if version and (int(version[1]), int(version[2])) < MIN_KSERVE:
        required = ".".join(map(str, MIN_KSERVE))
        next_step = f"upgrade to {required}, canaries require it: docs/cluster.md#prerequisites"
        return failed(_CONTROLLER, image, next_step)
    if deployment.status.available_replicas:
        return ok(_CONTROLLER, f"available, {image}")
    next_step = "kubectl -n kserve logs deployment/kserve-controller-manager"
    return failed(_CONTROLLER, f"no available pod, {image}", next_step)


def _trust(api: ApiClient) -> Finding:
    """Check the trusted keys and the gate policy that the predictor and the pipeline mount."""
    from kubernetes.client import CoreV1Api

    from grocer.release.trust import Trust

    config_map = CoreV1Api(api).read_namespaced_config_map(
        TRUST_CONFIG, _NAMESPACE, _request_timeout=_REQUEST_SECONDS
    )
    where = f"ConfigMap {TRUST_CONFIG} in namespace {_NAMESPACE}"
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (config_map.data or {}).items():
            Path(folder, name).write_text(text)
        try:
            trust = Trust.read(Path(folder))
        except ConfigError as error:
            return failed(_TRUST, f"{where}: {str(error).replace(f'{folder}/', '')}", _SIGNATURES)
    policy = "a gate policy" if trust.floor else "no gate policy"
    return ok(_TRUST, f"{where}: {', '.join(each.name for each in trust.signers)}; {policy}")


def _custom_object(api: ApiClient, *path: str) -> Any:
    """Return a custom resource; `path` is its group, version, namespace, plural and name."""
    from kubernetes.client import CustomObjectsApi

    objects = CustomObjectsApi(api)
    return objects.get_namespaced_custom_object(*path, _request_timeout=_REQUEST_SECONDS)


def _trainer(namespace: str, api: ApiClient) -> Finding:
    """Check the TrainingRuntime of the TrainJobs that the step train creates."""
    group, version = trainjob.GROUP, trainjob.VERSION
    _custom_object(api, group, version, namespace, "trainingruntimes", trainjob.RUNTIME)
    return ok(_TRAINER, f"TrainingRuntime {trainjob.RUNTIME} in namespace {namespace}")


def _queue(namespace: str, queue: str, api: ApiClient) -> Finding:
    """Check that a LocalQueue exists and admits workloads."""
    found = _custom_object(api, "kueue.x-k8s.io", "v1beta2", namespace, "localqueues", queue)
    status = found.get("status", {})
    inactive = [
        each["message"]
        for each in status.get("conditions", [])
        if each["type"] == "Active" and each["status"] != "True"
    ]
    where = f"LocalQueue {queue} in namespace {namespace}"
    if inactive:
        next_step = f"kubectl -n {namespace} describe localqueue {queue}"
        return failed(_QUEUE, f"{where} is not active: {inactive[0]}", next_step, needed=True)
    return ok(_QUEUE, f"{where}: {status.get('pendingWorkloads', 0)} workloads wait for quota")


def kubeflow(server: Server, has_cluster: bool) -> list[Finding]:
    """Check the Kubeflow Pipelines API: of the configured host, or else in the cluster."""
    needed = bool(server.host or os.environ.get("KF_PIPELINES_ENDPOINT"))
    if not (needed or has_cluster):
        return [optional(_KUBEFLOW, "no --host, no KF_PIPELINES_ENDPOINT, no cluster", _FORWARD)]
    return probe(
        _KUBEFLOW, "kfp", "pipeline", lambda: [_kubeflow(server, needed)], _FORWARD, needed=needed
    )


def _kubeflow(server: Server, needed: bool) -> Finding:
    client = server.connect(check=False)
    host = client.healthzs.api_client.configuration.host
    try:
        with server.translated_errors():
            health = server.health(client, _REQUEST_SECONDS)
    except ConfigError as error:
        if error.__cause__ is None:
            return failed(_KUBEFLOW, str(error), _FORWARD, needed)
        text, hint = describe_error(error.__cause__, host), server.hint(error.__cause__)
        return failed(_KUBEFLOW, text, f"{hint}, or: {_FORWARD}" if hint else _FORWARD, needed)
    multi_user = ", multi-user: set --namespace" if health["multi_user"] else ""
    return ok(
        _KUBEFLOW, f"version {health.get('tag_name', 'unknown')}, API v2beta1 at {host}{multi_user}"
    )
