"""The cluster's API, by way of `kubectl`: what is there, what it takes, what it refuses."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from tests.manifests.kustomize import Object

MANAGER = "grocer-tests"
T = TypeVar("T")


def kubectl(*words: str, given: str | None = None, seconds: float = 120) -> str:
    """What a kubectl command prints; that it fails is a failure of the test."""
    done = run(*words, given=given, seconds=seconds)
    assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr.strip()}"
    return done.stdout


def run(
    *words: str, given: str | None = None, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """A kubectl command, however it ends."""
    return subprocess.run(
        ["kubectl", *words], input=given, capture_output=True, text=True, timeout=seconds
    )


def apply(objects: Sequence[Object], *more: str) -> subprocess.CompletedProcess[str]:
    """Server-side-apply objects, refusing fields that the cluster does not know."""
    words = ("apply", "--server-side", "--force-conflicts", f"--field-manager={MANAGER}")
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    return run(*words, "--validate=strict", *more, "-f", "-", given=json.dumps(listed))


def applied(objects: Sequence[Object]) -> None:
    """The same, and it must succeed."""
    done = apply(objects)
    assert done.returncode == 0, done.stderr


class Api:
    """Reads, reviews and patches, through `kubectl proxy`."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def get(self, path: str, **query: str) -> Object | None:
        """The object at `path`, or None."""
        answer = self._http.get(path, params=query)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer.json()

    def items(self, path: str, **query: str) -> list[Object]:
        """The objects listed at `path`."""
        listed = self.get(path, **query)
        assert listed is not None, path
        return listed["items"]

    def post(self, path: str, body: Object, **headers: str) -> Object:
        """What the API makes of a review."""
        answer = self._http.post(path, json=body, headers=headers)
        answer.raise_for_status()
        return answer.json()

    def patch(self, path: str, body: Any, kind: str = "merge-patch") -> Object:
        """The object at `path` once it was patched."""
        headers = {"content-type": f"application/{kind}+json"}
        answer = self._http.patch(path, content=json.dumps(body), headers=headers)
        answer.raise_for_status()
        return answer.json()

    def serves(self, group_version: str, kind: str) -> bool:
        """Whether the cluster has objects of that kind."""
        root = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
        found = self.get(root) or {"resources": []}
        return any(resource["kind"] == kind for resource in found["resources"])


@contextmanager
def proxied() -> Iterator[Api]:
    """The API of the cluster that KUBECONFIG names."""
    process = subprocess.Popen(
        ["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        told = process.stdout.readline().decode()
        yield Api(f"http://{told.split()[-1]}")
    finally:
        process.terminate()
        process.wait(10)


def until(what: str, look: Callable[[], T | None], seconds: float = 120, every: float = 0.5) -> T:
    """What `look` finds, once it finds something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(every)
    return found
