"""A Kubernetes API with one InferenceService, its controller, and its predictor, over real HTTP.

What happens to a bundle's pods is told by its digest, in `fates`. Server-side apply, watches and
refusals answer as the real API server's do; kmock knows neither managed fields nor controllers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

from serving.cluster import Cluster
from serving.inference_service import DIGEST, canary, served

SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/grocer/inferenceservices/"
DEPLOYMENTS = "/apis/apps/v1/namespaces/grocer/deployments/"
PODS = "/api/v1/namespaces/grocer/pods"
READY: dict[str, Any] = {"ready": True}


def container(name: str = "kserve-container", **state: Any) -> dict[str, Any]:
    """A container's status: `waiting=reason` or `ended=exit code`, and its restarts."""
    made: dict[str, Any] = {"name": name, "restartCount": state.get("restarts", 0), "state": {}}
    if reason := state.get("waiting"):
        made["state"] = {"waiting": {"reason": reason, "message": state.get("message", reason)}}
    if "ended" in state:
        how = {"exitCode": state["ended"], "reason": state.get("reason", "Error")}
        made["lastState"] = {"terminated": how}
    return made


class Api(ThreadingHTTPServer):
    """Started and stopped as a context; `cluster` talks to it."""

    def __init__(self, fates: Mapping[str, Any], first: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.fates, self.log = dict(fates), "grocer: it said why"
        self.refusals: list[tuple[int, dict[str, Any] | str]] = []
        """What the next changes are answered with, in order."""
        self.watches: list[str] = []
        """How the next watches end: `gone` or `broken`; then they hold."""
        self.applied: list[dict[str, Any]] = []
        self.answers_with: str | None = None
        self.changed = Condition()
        model: dict[str, Any] = {"modelFormat": {"name": "grocer"}}
        if first:
            model |= {
                "runtime": "grocer",
                "storageUri": f"s3://b/{first}",
                "env": [{"name": DIGEST, "value": first}],
            }
        self.service: dict[str, Any] | None = {
            "metadata": {"name": "grocer", "generation": 1},
            "spec": {"predictor": {"minReplicas": 1, "model": model}},
        }

    def __enter__(self) -> Api:
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def cluster(self) -> Cluster:
        given = client.Configuration(host=self.url)
        given.retries = 0
        return Cluster(client.ApiClient(given), "grocer")

    def apply(self, fields: dict[str, Any]) -> None:
        """Merge what deploy owns; what it owned before and no longer names goes."""
        assert self.service is not None
        with self.changed:
            self.applied.append(fields)
            self.service["metadata"]["generation"] += 1
            self.service["metadata"]["annotations"] = fields["metadata"].get("annotations", {})
            predictor = self.service["spec"]["predictor"]
            predictor["name"] = fields["spec"]["predictor"].get("name", "")
            predictor["model"] = deepcopy(fields["spec"]["predictor"]["model"])
            self.service["spec"]["canary"] = deepcopy(fields["spec"].get("canary"))
            self.changed.notify_all()

    def deployments(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Digest and fate of each predictor's Deployment, by its name."""
        assert self.service is not None
        stable, beside = served(self.service), canary(self.service)
        told = [each for each in (stable, beside and beside.served) if each]
        return {
            each.deployment("grocer"): (each.digest, self.fates.get(each.digest, READY))
            for each in told
        }

    def deployment(self, name: str) -> dict[str, Any] | None:
        if name not in self.deployments():
            return None
        digest, fate = self.deployments()[name]
        count = 1 if fate.get("ready") else 0
        refused = fate.get("refused")
        failure = {"type": "ReplicaFailure", "status": "True", "message": refused}
        return {
            "metadata": {"name": name, "generation": 2},
            "spec": {"replicas": 1, "template": {"spec": _pod_spec(digest)}},
            "status": {
                "observedGeneration": 2,
                "replicas": 1,
                "updatedReplicas": 1,
                "availableReplicas": count,
                "conditions": [failure] if refused else [],
            },
        }

    def pods(self) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {
                    "name": f"{name}-x",
                    "creationTimestamp": "2026-11-25T00:00:00Z",
                    "resourceVersion": "7",
                },
                "spec": _pod_spec(digest),
                "status": fate.get("status", {}),
            }
            for name, (digest, fate) in self.deployments().items()
            if not fate.get("refused")
        ]


def _pod_spec(digest: str) -> dict[str, Any]:
    only = {"name": "kserve-container", "env": [{"name": DIGEST, "value": digest}]}
    return {"containers": [only]}


class _Answer(BaseHTTPRequestHandler):
    server: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if parts.path.startswith(SERVICES):
            self._service()
        elif parts.path.startswith(DEPLOYMENTS):
            name = parts.path.removeprefix(DEPLOYMENTS)
            found = self.server.deployment(name)
            self._send(200, found) if found else self._missing("deployments.apps", name)
        elif parts.path == PODS and "watch" in query:
            self._watch(float(query["timeoutSeconds"][0]))
        elif parts.path == PODS:
            self._send(200, {"items": self.server.pods()})
        elif parts.path.endswith("/log"):
            self._send(200, self.server.log)
        else:
            self._send(404, "404 page not found")

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.headers["content-type"] == "application/apply-patch+yaml"
        assert parse_qs(urlsplit(self.path).query) == {"fieldManager": ["grocer-deploy"]}
        if self.server.refusals:
            self._send(*self.server.refusals.pop(0))
            return
        self.server.apply(body)
        self._service()

    def do_POST(self) -> None:
        names = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]
        digest = (
            self.server.answers_with
            or self.server.applied[-1]["spec"]["predictor"]["model"]["env"][0]["value"]
        )
        answer = {"predictions": [{"department": "produce", "probability": 0.9} for _ in names]}
        self._send(200, answer, {"x-model-digest": digest})

    def _service(self) -> None:
        if self.server.service is None:
            self._missing("inferenceservices.serving.kserve.io", "grocer")
        elif not self.server.service:
            self._send(404, "404 page not found")
        else:
            self._send(200, self.server.service)

    def _missing(self, kind: str, name: str) -> None:
        self._send(404, refusal(f'{kind} "{name}" not found', name))

    def _watch(self, seconds: float) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.close_connection = True
        how = self.server.watches.pop(0) if self.server.watches else ""
        if how == "gone":
            self._event("ERROR", {"code": 410, "reason": "Expired", "message": "too old"})
            return
        if how == "broken":
            self.wfile.write(b'{"type": "ADD')
            return
        for pod in self.server.pods():
            self._event("ADDED", pod)
        with self.server.changed:
            self.server.changed.wait(min(seconds, 0.2))

    def _event(self, kind: str, value: Any) -> None:
        self.wfile.write(json.dumps({"type": kind, "object": value}).encode() + b"\n")
        self.wfile.flush()

    def _send(self, code: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(code)
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def refusal(message: str, name: str = "grocer") -> dict[str, Any]:
    """A Status, as the API server answers with."""
    return {"kind": "Status", "message": message, "details": {"name": name}}
