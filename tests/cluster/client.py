"""A client pod that sends requests to the predictor through its Service."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.api import Api, apply, kubectl, wait_until
from tests.cluster.pods import pod
from tests.manifests.kustomize import Object

NAME = "client"
GATEWAY = "http://kserve-ingress-gateway.kserve.svc"
"""URL of the Gateway that kind/gateway.yaml installs."""
_REQUEST = (Path(__file__).parent / "inside/request.py").read_text()
_LOAD = (Path(__file__).parent / "inside/load.py").read_text()
Report = Callable[[str], None]
"""Adds a line to the measurements of the session."""
_SLEEP = "import time; time.sleep(86400)"


@dataclass(frozen=True)
class Client:
    """Runs scripts in the client pod."""

    namespace: str

    def request(self, *requests: tuple[Any, ...]) -> list[tuple[int, Any, dict[str, str]]]:
        """Send requests and return (status, JSON body, headers) of each.

        Args:
            requests: a URL, a JSON body or None for GET, and the Host header if it is not that of
                the URL.

        Returns:
            Status 0 means a connection error.
        """
        return json.loads(self._exec(_REQUEST, stdin=json.dumps(requests)))

    def poll_until_ready(self, address: str, path: str, timeout: float) -> list[list[int]]:
        """Poll `/` and `path` until both return 200; return the pairs of statuses."""
        stdin = json.dumps([f"{address}/", f"{address}{path}", timeout])
        return json.loads(self._exec(_REQUEST, "--poll", stdin=stdin, timeout=timeout + 30))

    @contextmanager
    def load(self, url: str, *host: str) -> Iterator[dict[str, Any]]:
        """Send prediction requests continuously; the result is filled in on exit.

        Args:
            host: the Host header, if it is not that of `url`.
        """
        command = ["kubectl", "exec", "-i", "-n", self.namespace, NAME, "--"]
        process = subprocess.Popen(
            [*command, "python", "-c", _LOAD, url, *host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        result: dict[str, Any] = {}
        try:
            assert process.stdout.readline() == "started\n", "no request succeeded"
            yield result
            output, _ = process.communicate("", timeout=60)
            result |= json.loads(output)
        finally:
            process.kill()
            process.wait()

    def _exec(self, script: str, *arguments: str, stdin: str, timeout: float = 120) -> str:
        command = ("exec", "-i", "-n", self.namespace, NAME, "--", "python", "-c", script)
        return kubectl(*command, *arguments, stdin=stdin, timeout=timeout)


def client_pod(namespace: str, image: str) -> Object:
    """Return the manifest of the client pod."""
    manifest = pod(NAME, namespace, image, ["python", "-c", _SLEEP])
    manifest["metadata"]["labels"] = {"grocer-client": "true"}
    return manifest


def start_client(namespace: str, image: str) -> Client:
    """Create the client pod and wait until it runs."""
    apply([client_pod(namespace, image)])
    kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", "-n", namespace, "--timeout=120s")
    return Client(namespace)


@dataclass(frozen=True)
class Gateway:
    """Sends requests to the InferenceService of a namespace through the Gateway."""

    client: Client
    api: Api
    namespace: str

    @property
    def route(self) -> Object:
        """The HTTPRoute of the InferenceService; waits until KServe has created it."""
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{self.namespace}/httproutes/grocer"
        return wait_until("KServe's controller creates the HTTPRoute", lambda: self.api.get(path))

    @property
    def host(self) -> str:
        """The Host header of requests to the gateway."""
        return str(self.route["spec"]["hostnames"][0])

    def load(self) -> AbstractContextManager[dict[str, Any]]:
        """Send prediction requests continuously, as `Client.load`."""
        return self.client.load(GATEWAY, self.host)

    def digests(self, seconds: float = 0) -> list[str]:
        """Return the digests of the bundles that answer requests for some time."""
        with self.load() as load:
            time.sleep(seconds)
        return list(load["digests"])


def summary(load: dict[str, Any]) -> str:
    """Return what a load measured, in one line."""
    return (
        f"{load['sent']} requests in {load['seconds']} s, {load['failed']} failed, "
        f"longest gap between successes {load['longest_gap']} s"
    )
