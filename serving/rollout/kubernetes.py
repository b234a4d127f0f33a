"""The Kubernetes API as far as a rollout needs it; what it refuses is said in one line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException
from kubernetes.watch.watch import iter_resp_lines

from grocer.errors import DeployError
from serving.rollout.inference_service import MANAGER

_INFERENCE_SERVICE = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices/{}"
_DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments"
_CORE = "/api/v1/namespaces/{}"
_LOG_LINES, _WORDS = 20, 500
_LOOK_SECONDS = 5
_Object = dict[str, Any]


class Cluster:
    """One namespace of a cluster. Objects come as the API gives them, as JSON."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api, self.namespace = api, namespace

    @classmethod
    def connect(cls, namespace: str) -> Cluster:
        """By a pod's own account, else by the kubeconfig.

        Raises:
            DeployError: there is neither.
        """
        given = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=given)
        except ConfigException:
            try:
                # The client's own default is what the variable was when it was imported.
                config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=given)
            except (ConfigException, OSError) as error:
                raise DeployError(
                    f"no cluster: this is no pod, and no kubeconfig serves ({error}); "
                    "set KUBECONFIG"
                ) from error
        given.retries = 2
        return cls(client.ApiClient(given), namespace)

    def inference_service(self, name: str) -> _Object:
        """The InferenceService.

        Raises:
            DeployError: there is none, KServe is not installed, or access is denied.
        """
        return self._ask("GET", _INFERENCE_SERVICE.format(self.namespace, name))

    def apply(self, name: str, fields: Mapping[str, Any]) -> _Object:
        """Server-side-apply what deploy owns of an InferenceService; the rest stays as it is.

        Raises:
            DeployError: another manager owns one of the fields, an admission webhook refuses
                them, or access is denied.
        """
        path = _INFERENCE_SERVICE.format(self.namespace, name)
        return self._ask("PATCH", path, [("fieldManager", MANAGER)], body=fields)

    def deployment(self, name: str) -> _Object | None:
        """The Deployment, if there is one by now."""
        try:
            return self._ask("GET", f"{_DEPLOYMENTS.format(self.namespace)}/{name}")
        except _NotFound:
            return None

    def address(self, name: str) -> str:
        """Where a Service answers from within the cluster; past it, if it has no address."""
        spec = self._ask("GET", f"{_CORE.format(self.namespace)}/services/{name}")["spec"]
        port = spec["ports"][0]
        number = port["targetPort"] if spec.get("clusterIP") == "None" else port["port"]
        return f"http://{name}.{self.namespace}.svc:{number}"

    def pods(self, labels: str) -> list[_Object]:
        """The pods with these labels, the newest first."""
        path = f"{_CORE.format(self.namespace)}/pods"
        found = self._ask("GET", path, [("labelSelector", labels)])["items"]
        return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True)

    def last_warning(self, pod: str) -> str:
        """What Kubernetes complained of last about a pod, or empty."""
        path = f"{_CORE.format(self.namespace)}/events"
        only = f"involvedObject.kind=Pod,involvedObject.name={pod},type=Warning"
        try:
            found = self._ask("GET", path, [("fieldSelector", only)])["items"]
        except DeployError as error:  # which must not hide why somebody asked
            return f"not known, as {error}"
        when = [(e.get("lastTimestamp") or e.get("eventTime") or "", e["message"]) for e in found]
        return _short(max(when)[1]) if when else ""

    def last_words(self, pod: str, container: str) -> str:
        """The last line that a container of a pod said, in its former life if it began anew."""
        path = f"{_CORE.format(self.namespace)}/pods/{pod}/log"
        for previous in ("true", "false"):
            query = [("container", container), ("previous", previous)]
            try:
                text = self._text(path, [*query, ("tailLines", str(_LOG_LINES))])
            except DeployError:  # it has no former life, or no log yet
                continue
            if text.startswith("unable to retrieve container logs"):  # the kubelet's, with a 200
                continue
            if lines := [line for line in text.splitlines() if line.strip()]:
                return _short(lines[-1])
        return ""

    def looks(self, labels: str, seconds: float) -> Iterator[None]:
        """Yield at once and whenever a Deployment with these labels changes, for `seconds`.

        Yields every five seconds at least, as not all that matters shows in a Deployment. Each
        watch begins with what is there now, so none can begin too far back (410) or miss a
        change; one that the server ends, or that breaks, is begun anew.
        """
        until = time.monotonic() + seconds
        yield
        while (left := until - time.monotonic()) > 0:
            try:
                yield from self._watch(labels, max(1, round(min(left, _LOOK_SECONDS))))
            except (urllib3.exceptions.HTTPError, ApiException, ValueError) as error:
                if isinstance(error, ApiException) and error.status in (401, 403):
                    raise _refusal(error) from error
                time.sleep(min(1.0, left))  # before the API is asked again
            yield

    def _watch(self, labels: str, seconds: int) -> Iterator[None]:
        query = [("labelSelector", labels), ("watch", "true"), ("timeoutSeconds", str(seconds))]
        path = _DEPLOYMENTS.format(self.namespace)
        stream = self._call("GET", path, query, seconds=seconds + 5, _preload_content=False)
        try:
            for line in iter_resp_lines(stream):
                if json.loads(line)["type"] == "ERROR":
                    return
                yield
        finally:
            stream.close()
            stream.release_conn()

    def _ask(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        with self._explained():
            return self._call(method, path, query, body=body, response_type="object")

    def _text(self, path: str, query: Sequence[tuple[str, str]]) -> str:
        """An answer as it is, where it only may look like JSON."""
        with self._explained():
            answer = self._call("GET", path, query, _preload_content=False)
            return str(answer.data.decode(errors="replace"))

    def _call(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        *,
        body: Mapping[str, Any] | None = None,
        seconds: int = 60,
        **more: Any,
    ) -> Any:
        headers = {"Accept": "application/json, */*"}
        if body is not None:
            headers["Content-Type"] = "application/apply-patch+yaml"
        return self._api.call_api(
            path,
            method,
            query_params=list(query),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=seconds,
            **more,
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            raise _refusal(error) from error
        except urllib3.exceptions.HTTPError as error:
            host = self._api.configuration.host
            raise DeployError(f"no Kubernetes API answers at {host}: {error}") from error


class _NotFound(DeployError):  # noqa: N818
    """What was asked for is not there."""


def _refusal(error: ApiException) -> DeployError:
    """What the API server said, and what to do about it."""
    status = _status(error)
    said = " ".join(str(status.get("message") or error.body or error.reason).split())
    if error.status == 404:
        if not status.get("details", {}).get("name"):
            return _NotFound(
                "the cluster knows no InferenceService at all: KServe is not installed; "
                "see docs/cluster.md"
            )
        return _NotFound(f"{said}; apply an overlay of manifests/ first, or see deploy.namespace")
    hint = {
        401: "log in again, or see the kubeconfig's credentials",
        403: "give that account the Role grocer-deploy of manifests/base",
        409: "let that manager give up the field, as deploy alone says what is served",
    }.get(error.status, "")
    return DeployError(f"the cluster refused ({error.status}): {said}" + (f"; {hint}" * bool(hint)))


def _status(error: ApiException) -> _Object:
    """The Kubernetes Status in an error's body, if there is one."""
    try:
        status = json.loads(error.body or "{}")
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def _short(text: str) -> str:
    """The text in one line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= _WORDS else f"{line[:_WORDS]} …"
