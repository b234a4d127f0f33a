"""Access to the Kubernetes API; its errors become one-line `DeployError`s."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException
from kubernetes.config.incluster_config import InClusterConfigLoader
from kubernetes.watch import Watch

from grocer.config.deployment import DEPLOY_TOKEN
from grocer.errors import DeployError
from serving.rollout.api_errors import describe_error, error_status
from serving.rollout.inference_service import FIELD_MANAGER, GROUP, PLURAL, VERSION

RETRY_SECONDS = 5.0
_REQUEST_SECONDS = 60
_POLL_SECONDS = 5
_LOG_LINES, _MAX_CHARACTERS = 20, 500
_OTHER_YAML = (TypeError, AttributeError)  # what other YAML than a kubeconfig causes


class NotFoundError(DeployError):
    """The requested object does not exist."""


class ChangedError(DeployError):
    """The object has another resource version than the one in the request."""


class UnreachableError(DeployError):
    """The API server did not answer, or failed; the request may succeed later."""


class NoKubeconfigError(DeployError):
    """Not in a pod, and there is no kubeconfig file."""


class _Client(client.ApiClient):
    """A client that rejects the answers of another server, as a connection error."""

    def request(self, method: str, url: str, **options: Any) -> Any:
        headers = options.get("headers") or {}
        if "authorization" in headers:  # as kubectl does: a token file can end with a line break
            headers["authorization"] = headers["authorization"].strip()
        is_text = url.endswith("/log") or ("watch", True) in (options.get("query_params") or ())
        try:
            response = super().request(method, url, **options)
            is_page = "html" in response.getheaders().get("content-type", "")
            if not is_page and (is_text or isinstance(json.loads(response.data), dict)):
                return response
        except (UnicodeDecodeError, json.JSONDecodeError):
            is_page = False
        raise urllib3.exceptions.HTTPError(
            f"it answers with {'an HTML page' if is_page else 'invalid JSON'}; check the server in "
            "the kubeconfig, and your login"
        )


def connect(*, retries: int = 2) -> tuple[client.ApiClient, str]:
    """Return a client for the cluster of the pod or of the kubeconfig, and its identity.

    In a pod with the token of another account in `DEPLOY_TOKEN`, it is that account.

    Raises:
        NoKubeconfigError: neither in a pod nor a kubeconfig file.
        DeployError: the kubeconfig is invalid.
    """
    configuration = client.Configuration()
    configuration.retries = retries
    # The kubernetes package reads KUBECONFIG at import; a later change counts here.
    path = os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
    token = Path(DEPLOY_TOKEN)
    try:
        if (token / "token").exists():
            InClusterConfigLoader(token / "token", token / "ca.crt").load_and_set(configuration)
            return _Client(configuration), f"the service account of {token}"
        config.load_incluster_config(client_configuration=configuration)
        return _Client(configuration), "the pod's service account"
    except ConfigException:
        if not os.environ.get("KUBECONFIG") and not os.path.exists(path):
            raise NoKubeconfigError("no kubeconfig, and not in a pod; set KUBECONFIG") from None
    try:
        config.load_kube_config(path, client_configuration=configuration)
        _, context = config.list_kube_config_contexts(path)
    except (ConfigException, OSError, yaml.YAMLError, ValueError, *_OTHER_YAML) as error:
        is_other = isinstance(error, _OTHER_YAML)
        reason = "it has no clusters and contexts" if is_other else str(error).rstrip(".")
        raise DeployError(
            f"kubeconfig {path} cannot be loaded: {reason}; set KUBECONFIG"
        ) from error
    return _Client(configuration), f"context {context['name']}"


class Cluster:
    """One namespace of a cluster; built-in kinds are typed, an InferenceService is JSON."""

    hints: ClassVar[Mapping[int, str]] = {
        401: "log in again, or check the kubeconfig's credentials",
        403: "bind the Role grocer-deploy of manifests/base to this account",
        409: f"release ownership of the fields in that manager; only {FIELD_MANAGER} may set them",
    }
    """Next steps by status code."""
    missing = "the cluster has no resource InferenceService; install KServe (docs/cluster.md)"

    retry_seconds = 0.0
    """How long a request is repeated while the API server does not answer."""

    def __init__(self, namespace: str, api: client.ApiClient | None = None) -> None:
        """Connect with `api`, or else as `connect` does."""
        api, self.namespace = api or connect()[0], namespace
        self._api, self._host = api, api.configuration.host
        self._core, self._apps = client.CoreV1Api(api), client.AppsV1Api(api)
        self._objects = client.CustomObjectsApi(api)

    def inference_service(self, name: str) -> dict[str, Any]:
        """Return an InferenceService.

        Raises:
            DeployError: it does not exist, KServe is not installed, access is denied, or another
                server answers.
        """
        get = self._objects.get_namespaced_custom_object
        service = self._call(get, GROUP, VERSION, self.namespace, PLURAL, name)
        if service.get("kind") != "InferenceService":
            raise DeployError(
                f"Kubernetes API at {self._host}: unexpected response without an InferenceService; "
                "check the server in the kubeconfig"
            )
        return service

    def apply(self, body: Mapping[str, Any]) -> None:
        """Server-side apply an InferenceService; fields of other managers stay unchanged.

        Raises:
            ChangedError: the body's resource version is not the current one.
            DeployError: field-manager conflict, rejected by admission, or access denied.
        """
        name = body["metadata"]["name"]
        # The typed API cannot server-side apply custom objects.
        self._call(
            self._api.call_api,
            f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}/{name}",
            "PATCH",
            query_params=[("fieldManager", FIELD_MANAGER)],
            header_params={"Content-Type": "application/apply-patch+yaml"},
            body=body,
            auth_settings=["BearerToken"],
        )

    def http_route(self, name: str) -> dict[str, Any] | None:
        """Return an HTTPRoute of the Gateway API, or None if it does not exist."""
        get, group = self._objects.get_namespaced_custom_object, "gateway.networking.k8s.io"
        try:
            return self._call(get, group, "v1", self.namespace, "httproutes", name)
        except NotFoundError:
            return None

    def deployment(self, name: str) -> client.V1Deployment | None:
        """Return a Deployment, or None if it does not exist."""
        try:
            return self._call(self._apps.read_namespaced_deployment, name, self.namespace)
        except NotFoundError:
            return None

    def address(self, name: str) -> str:
        """Return the URL of a Service; of a headless one with the port of its pods."""
        spec = self._call(self._core.read_namespaced_service, name, self.namespace).spec
        port = spec.ports[0]
        number = port.target_port if spec.cluster_ip == "None" else port.port
        return f"http://{name}.{self.namespace}.svc:{number}"

    def pods(self, selector: str) -> list[client.V1Pod]:
        """Return the pods that match a label selector, newest first."""
        list_pods = self._core.list_namespaced_pod
        pods = self._call(list_pods, self.namespace, label_selector=selector).items
        return sorted(pods, key=lambda pod: pod.metadata.creation_timestamp, reverse=True)

    def last_warning(self, pod: str) -> str:
        """Return the message of a pod's last warning event, or an empty string."""
        try:
            events = self.events("Pod", pod)
        except DeployError as error:  # must not hide the failure that is being reported
            return f"events not readable: {error}"
        last = next((event for event in reversed(events) if event.type == "Warning"), None)
        return (last.message or "")[:_MAX_CHARACTERS] if last else ""

    def events(self, kind: str, name: str) -> list[client.CoreV1Event]:
        """Return the events of an object, oldest first."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name}"
        list_events = self._core.list_namespaced_event
        events = self._call(list_events, self.namespace, field_selector=selector).items
        oldest = datetime.min.replace(tzinfo=UTC)
        return sorted(events, key=lambda each: each.last_timestamp or each.event_time or oldest)

    def create_event(self, body: Mapping[str, Any]) -> None:
        self._call(self._core.create_namespaced_event, self.namespace, body)

    def last_log_line(self, pod: str, container: str) -> str:
        """Return the last line of a container's log, of its previous instance if it restarted."""
        for previous in (True, False):
            try:
                # Undecoded, as the typed API parses a log that happens to be JSON.
                response = self._call(
                    self._core.read_namespaced_pod_log,
                    pod,
                    self.namespace,
                    container=container,
                    previous=previous,
                    tail_lines=_LOG_LINES,
                    _preload_content=False,
                )
            except DeployError:  # no previous instance, or no log yet
                continue
            text = response.data.decode(errors="replace")
            if text.startswith("unable to retrieve container logs"):  # from the kubelet, status 200
                continue
            if lines := text.strip().splitlines():
                return lines[-1][:_MAX_CHARACTERS]
        return ""

    def watch_deployments(self, selector: str, timeout: float) -> Iterator[None]:
        """Yield now and on every change of a matching Deployment, until `timeout` seconds passed.

        Yields at least every five seconds, as pods can change without their Deployment. A watch
        that ends or breaks is restarted. Each one starts with the current state, so it misses no
        change and never starts from an expired resource version (410).
        """
        deadline = time.monotonic() + timeout
        yield
        while (left := deadline - time.monotonic()) > 0:
            seconds = max(1, round(min(left, _POLL_SECONDS)))
            try:
                for _ in Watch("object").stream(
                    self._apps.list_namespaced_deployment,
                    self.namespace,
                    label_selector=selector,
                    timeout_seconds=seconds,
                    _request_timeout=seconds + 5,
                ):
                    yield
            except (urllib3.exceptions.HTTPError, ApiException, ValueError) as error:
                if isinstance(error, ApiException) and error.status in (401, 403):
                    raise self._translated(error) from error
                time.sleep(min(1.0, left))
            yield

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        deadline = time.monotonic() + self.retry_seconds
        while True:
            try:
                return function(*args, _request_timeout=_REQUEST_SECONDS, **kwargs)
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                translated = self._translated(error)
                if not isinstance(translated, UnreachableError) or time.monotonic() >= deadline:
                    raise translated from error
            time.sleep(RETRY_SECONDS)

    def _translated(self, error: Exception) -> DeployError:
        """Return the error with the API server's message and the next step."""
        code = getattr(error, "status", None)
        if code == 404:
            status = error_status(error)
            if not status.get("details", {}).get("name"):
                return NotFoundError(self.missing)
            return NotFoundError(
                f"{status['message']}; apply an overlay of manifests/, or check deploy.namespace"
            )
        text = describe_error(error, f"Kubernetes API at {self._host}")
        if code == 403 and "system:anonymous" in text:
            code = 401  # no credentials were sent, as if the kubeconfig's plugin fails
        if code == 409 and not error_status(error).get("details", {}).get("causes"):
            return ChangedError(text)
        if code is None or code == 429 or code >= 500:
            return UnreachableError(text)
        return DeployError(f"{text}; {self.hints[code]}" if code in self.hints else text)
