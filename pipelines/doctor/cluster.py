"""What `grocer doctor` finds of a cluster: Kubernetes' API, KServe, Kubeflow Pipelines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from grocer.errors import ConfigError
from pipelines.doctor.report import Finding, asked, lacking, ok, reason, unneeded
from pipelines.kubeflow.client import Server

if TYPE_CHECKING:
    from kubernetes import client

OLDEST = (1, 32)
"""Kubernetes; what kind/versions pins was made for this or newer."""
GROUP = "serving.kserve.io"
KINDS = {"v1alpha1": "servingruntimes", "v1beta1": "inferenceservices"}
"""KServe's resources that manifests/ and deploy use, by version."""
CONTROLLER = "/apis/apps/v1/namespaces/kserve/deployments/kserve-controller-manager"
_SECONDS = 4  # for one answer
_CONNECT = "kubectl cluster-info"
_FORWARD = (
    "kubectl -n kubeflow port-forward service/ml-pipeline 8888, and --host http://127.0.0.1:8888"
)


def cluster() -> list[Finding]:
    """The Kubernetes API that this pod's account or the kubeconfig leads to, and KServe in it."""
    found = asked("Kubernetes", "kubernetes", "serve", _cluster, _CONNECT)
    if len(found) == 1:
        then = "as for Kubernetes" if found[0].state == "lacking" else ""
        found.append(Finding("KServe", "not looked for without a cluster", found[0].state, then))
    return found


def _cluster() -> list[Finding]:
    from kubernetes import client

    given = client.Configuration()
    name = _load(given)
    if isinstance(name, Finding):
        return [name]
    given.retries = 0
    with client.ApiClient(given) as api:
        found = _ask(api, "Kubernetes", "/version", lambda told: _version(name, told))
        if found.state != "ok":
            return [found]
        kserve = _ask(api, "KServe", f"/apis/{GROUP}", lambda told: _resources(api, told))
        if kserve.state != "ok":
            return [found, kserve]
        return [found, kserve, _ask(api, "KServe's controller", CONTROLLER, _controller)]


def _load(given: client.Configuration) -> str | Finding:
    """Fill the configuration; the account's or the context's name, or why there is none."""
    from kubernetes import config

    if "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config(client_configuration=given)
        return "this pod's account"
    # The client's own default is what the variable was when it was imported.
    file = os.environ.get("KUBECONFIG")
    if not file and not Path("~/.kube/config").expanduser().exists():
        then = "docs/cluster.md#kind, or set KUBECONFIG"
        return unneeded("Kubernetes", "no kubeconfig, and this is no pod", then)
    try:
        config.load_kube_config(file, client_configuration=given)
        _, context = config.list_kube_config_contexts(file)
    except (config.ConfigException, OSError) as error:
        found = f"{file or '~/.kube/config'} does not serve: {error}"
        return lacking("Kubernetes", found, "kubectl config view, or set KUBECONFIG")
    return f"context {context['name']}"


def _ask(api: client.ApiClient, what: str, path: str, judge: Callable[[Any], Finding]) -> Finding:
    """What `judge` makes of the answer, or why there is none."""
    import urllib3
    from kubernetes.client.exceptions import ApiException

    try:
        return judge(_get(api, path))
    except ApiException as error:
        return _refused(what, path, error)
    except urllib3.exceptions.HTTPError as error:
        found = f"no answer at {api.configuration.host}: {reason(error)}"
        return lacking(what, found, _CONNECT)


def _get(api: client.ApiClient, path: str) -> Any:
    return api.call_api(
        path,
        "GET",
        header_params={"Accept": "application/json"},
        auth_settings=["BearerToken"],
        response_type="object",
        _return_http_data_only=True,
        _request_timeout=_SECONDS,
    )


def _refused(what: str, path: str, error: Any) -> Finding:
    """What a status that is none of success means, by what was asked for."""
    if error.status == 404 and path == f"/apis/{GROUP}":
        found = f"not installed: the cluster knows no {GROUP}"
        return lacking(what, found, "kind/up shows how; docs/cluster.md")
    if error.status == 404 and path == CONTROLLER:
        return lacking(what, "none in the namespace kserve", "kubectl get pods -A | grep kserve")
    if error.status == 403 and path == CONTROLLER:
        return unneeded(what, "not seen: this account may not read the namespace kserve")
    found = f"refused ({error.status}): {_message(error.body) or error.reason}"
    return lacking(what, found, "log in again: kubectl auth whoami")


def _message(body: str | None) -> str:
    """The message in an answer's JSON, as a Kubernetes Status has one."""
    try:
        return str(json.loads(body or "{}").get("message", ""))
    except (ValueError, AttributeError):
        return ""


def _version(name: str, told: Any) -> Finding:
    found = f"{name}, {told['gitVersion']}"
    if (int(told["major"]), int(told["minor"].rstrip("+"))) >= OLDEST:
        return ok("Kubernetes", found)
    then = f"upgrade it to {OLDEST[0]}.{OLDEST[1]} or newer: docs/cluster.md#prerequisites"
    return lacking("Kubernetes", found, then)


def _resources(api: client.ApiClient, told: Any) -> Finding:
    """Whether the CRDs that Grocer uses are served."""
    versions = [each["version"] for each in told["versions"]]
    for version, kind in KINDS.items():
        served = _get(api, f"/apis/{GROUP}/{version}") if version in versions else {"resources": []}
        if kind not in {each["name"] for each in served["resources"]}:
            found = f"{', '.join(versions)} of {GROUP} without {version} of {kind}"
            return lacking("KServe", found, "install the version of kind/versions: docs/cluster.md")
    return ok("KServe", f"CRDs of {GROUP} in {', '.join(versions)}")


def _controller(told: Any) -> Finding:
    """Whether a pod of the controller is available, and the version that its image tells."""
    containers = told["spec"]["template"]["spec"]["containers"]
    images = [each["image"] for each in containers if each["name"] == "manager"]
    image = (images or [containers[0]["image"]])[0].rpartition("/")[2]
    if told.get("status", {}).get("availableReplicas"):
        return ok("KServe's controller", f"available, {image}")
    then = "kubectl -n kserve logs deployment/kserve-controller-manager"
    return lacking("KServe's controller", f"no pod of it is available, {image}", then)


def kubeflow(server: Server, there: bool) -> list[Finding]:
    """Kubeflow Pipelines' API: at the host that was named, or in the cluster if one is `there`."""
    named = server.host or os.environ.get("KF_PIPELINES_ENDPOINT")
    what = "Kubeflow Pipelines"
    if not named and not there:
        return [unneeded(what, "no --host, no KF_PIPELINES_ENDPOINT, no cluster", _FORWARD)]
    needed = server.host is not None
    return asked(
        what, "kfp", "pipeline", lambda: [_kubeflow(server, needed)], _FORWARD, needed=needed
    )


def _kubeflow(server: Server, needed: bool) -> Finding:
    import kfp

    class Impatient(kfp.Client):  # type: ignore[misc, unused-ignore]
        """Asks nothing by itself: kfp's own asks five times, five seconds apart."""

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            return SimpleNamespace(multi_user=False)

    api = server.connect(Impatient)._healthz_api.api_client
    where = api.configuration.host
    try:
        with server.explained():
            told = api.call_api(
                "/apis/v2beta1/healthz",
                "GET",
                header_params={"Accept": "application/json"},
                auth_settings=["Bearer"],
                response_type="object",
                _return_http_data_only=True,
                _request_timeout=_SECONDS,
            )
    except ConfigError as error:
        cause: Any = error.__cause__
        status = getattr(cause, "status", None)
        if status is None:
            found = f"no answer at {where}: {reason(cause)}"
            return lacking("Kubeflow Pipelines", found, _FORWARD, needed)
        found = f"refused ({status}) at {where}: {_message(cause.body) or cause.reason}"
        then = f"put a token into {server.token_env}, or: {_FORWARD}"
        return lacking(
            "Kubeflow Pipelines", found, then if status in (401, 403) else _FORWARD, needed
        )
    version = told.get("tag_name", "unknown")  # which is what a build without a release says
    version = "version not told" if version == "unknown" else version
    shared = ", shared by several: --namespace" if told.get("multi_user") else ""
    return ok("Kubeflow Pipelines", f"{version}, API v2beta1 at {where}{shared}")
