"""Access to the Kubernetes API of the test cluster through kubectl."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import httpx

from tests.manifests.kustomize import Object

FIELD_MANAGER = "grocer-tests"
T = TypeVar("T")


def run_kubectl(
    *arguments: str, stdin: str | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run kubectl and return the completed process, whatever its exit code."""
    command = ["kubectl", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)


def kubectl(*arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
    """Run kubectl and return its output; fail the test if it fails."""
    result = run_kubectl(*arguments, stdin=stdin, timeout=timeout)
    assert result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr.strip()}"
    return result.stdout


def try_apply(objects: Sequence[Object], *options: str) -> subprocess.CompletedProcess[str]:
    """Server-side apply objects with strict validation."""
    command = ("apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}")
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    return run_kubectl(*command, "--validate=strict", *options, "-f", "-", stdin=manifest)


def apply(objects: Sequence[Object]) -> None:
    """Server-side apply objects; fail the test if one is rejected."""
    result = try_apply(objects)
    assert result.returncode == 0, result.stderr


def allow_store(namespace: str, uri: str) -> None:
    """Let the deploy account deploy the bundles of a store only; of none, if the URI is empty."""
    annotation = f"grocer-deploy/store={uri}" if uri else "grocer-deploy/store-"
    kubectl("annotate", "namespace", namespace, annotation, "--overwrite")


class Api:
    """A JSON client of the Kubernetes API."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def get(self, path: str, **query: str) -> Object | None:
        """Return the object at `path`, or None if it does not exist."""
        response = self._http.get(path, params=query)
        if response.status_code == 404:
            return None
        response.raise_for_status()
        return response.json()

    def items(self, path: str, **query: str) -> list[Object]:
        """Return the objects of the list at `path`."""
        response = self.get(path, **query)
        assert response is not None, path
        return response["items"]

    def post(self, path: str, body: Object, **headers: str) -> Object:
        """Create an object, such as an access review, and return it with its status."""
        response = self._http.post(path, json=body, headers=headers)
        response.raise_for_status()
        return response.json()

    def patch(self, path: str, body: Object) -> None:
        """Apply a JSON merge patch to the object at `path`."""
        headers = {"content-type": "application/merge-patch+json"}
        response = self._http.patch(path, content=json.dumps(body), headers=headers)
        response.raise_for_status()

    def serves(self, group_version: str, kind: str) -> bool:
        """Return whether the cluster has a kind."""
        root = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
        resources = (self.get(root) or {"resources": []})["resources"]
        return any(resource["kind"] == kind for resource in resources)


@contextmanager
def kubectl_proxy() -> Iterator[Api]:
    """Run `kubectl proxy` for the cluster of KUBECONFIG."""
    process = subprocess.Popen(
        ["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        address = process.stdout.readline().decode().split()[-1]
        yield Api(f"http://{address}")
    finally:
        process.terminate()
        process.wait(10)


def wait_until(condition: str, check: Callable[[], T | None], timeout: float = 120) -> T:
    """Poll `check` until it returns a truthy value, and return that."""
    deadline = time.monotonic() + timeout
    while not (value := check()):
        assert time.monotonic() < deadline, f"timed out after {timeout:g} s: {condition}"
        time.sleep(0.5)
    return value


def is_ready(manifest: Object) -> bool:
    """Return whether the condition Ready of a pod or node is true."""
    conditions = manifest["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def predictor_pods(api: Api, namespace: str, digest: str = "") -> list[Object]:
    """Return the predictor's pods that are not terminating; only those of `digest`, if given."""
    selector = "serving.kserve.io/inferenceservice=grocer"
    pods = api.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"] and digest in str(pod["spec"]["containers"])
    ]
