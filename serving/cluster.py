"""The Kubernetes API as far as a rollout needs it; what it refuses is said in one line."""

from __future__ import annotations

import json
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

MANAGER = "grocer-deploy"
"""Owner of the fields that deploy applies."""
_SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices/{}"
_DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments/{}"
_LOG_LINES = 20
_PATIENCE_SECONDS = 10.0
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
                config.load_kube_config(client_configuration=given)
            except (ConfigException, OSError) as error:
                raise DeployError(
                    "no cluster: this is no pod, and no kubeconfig is found; set KUBECONFIG"
                ) from error
        given.retries = 2
        return cls(client.ApiClient(given), namespace)

    def inference_service(self, name: str) -> _Object:
        """The InferenceService.

        Raises:
            DeployError: there is none, KServe is not installed, or access is denied.
        """
        return self._ask("GET", _SERVICES.format(self.namespace, name))

    def apply(self, name: str, fields: Mapping[str, Any]) -> _Object:
        """Server-side-apply what deploy owns of an InferenceService; the rest stays as it is.

        Raises:
            DeployError: another manager owns one of the fields, an admission webhook refuses
                them, or access is denied.
        """
        return self._ask(
            "PATCH", _SERVICES.format(self.namespace, name), fields, [("fieldManager", MANAGER)]
        )

    def deployment(self, name: str) -> _Object | None:
        """The Deployment, if there is one by now."""
        try:
            return self._ask("GET", _DEPLOYMENTS.format(self.namespace, name))
        except _NotFoundError:
            return None

    def pods(self, labels: str) -> list[_Object]:
        """The pods with these labels, the newest first."""
        query = [("labelSelector", labels)]
        found = self._ask("GET", f"/api/v1/namespaces/{self.namespace}/pods", query=query)["items"]
        return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True)

    def changes(self, labels: str, seconds: float) -> Iterator[None]:
        """Yield at once, then whenever one of the pods changes, until `seconds` have passed.

        Yields at least every ten seconds, as not everything that matters is a change of a pod;
        a watch that the server ends, or that breaks, is begun anew.
        """
        until = time.monotonic() + seconds
        yield
        while (left := until - time.monotonic()) > 0:
            try:
                yield from self._watched(labels, min(left, _PATIENCE_SECONDS))
            except (urllib3.exceptions.HTTPError, ApiException, ValueError) as error:
                if isinstance(error, ApiException) and error.status in (401, 403):
                    raise _refusal(error) from error
                time.sleep(min(1.0, left))
            yield

    def _watched(self, labels: str, seconds: float) -> Iterator[None]:
        whole = max(1, round(seconds))
        query = [("labelSelector", labels), ("watch", "true"), ("timeoutSeconds", str(whole))]
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        stream = self._call("GET", path, query, seconds=whole + 5, _preload_content=False)
        try:
            for line in iter_resp_lines(stream):
                if json.loads(line)["type"] == "ERROR":  # the server has forgotten so far back
                    return
                yield
        finally:
            stream.close()
            stream.release_conn()

    def last_words(self, pod: str, container: str) -> str:
        """The last line that a container of a pod said, in its former life if it began anew."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        for previous in ("true", "false"):
            query = [
                ("container", container),
                ("previous", previous),
                ("tailLines", str(_LOG_LINES)),
            ]
            try:
                text = str(self._ask("GET", path, query=query, kind="str"))
            except DeployError:  # it has no former life, or no log yet
                continue
            if lines := [line.strip() for line in text.splitlines() if line.strip()]:
                return lines[-1]
        return ""

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Sequence[tuple[str, str]] = (),
        kind: str = "object",
    ) -> Any:
        with self._explained():
            return self._call(method, path, query, body=body, response_type=kind)

    def _call(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]],
        *,
        body: Mapping[str, Any] | None = None,
        seconds: float = 60.0,
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


class _NotFoundError(DeployError):
    """What was asked for is not there."""


def _refusal(error: ApiException) -> DeployError:
    """What the API server said, and what to do about it."""
    status = _status(error)
    said = " ".join(str(status.get("message") or error.body or error.reason).split())
    if error.status == 404:
        if not status.get("details", {}).get("name"):
            return _NotFoundError("the cluster knows no InferenceService: KServe is not installed")
        return _NotFoundError(
            f"{said}; apply an overlay of manifests/ first, or see deploy.namespace"
        )
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
