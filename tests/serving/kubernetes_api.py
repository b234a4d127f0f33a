"""A Kubernetes API with one InferenceService, its controller, and its predictor, over real HTTP.

What happens to a bundle's pods is told by its digest, in `fates`. Server-side apply, watches and
refusals answer as the real API server's do; kmock has no applied fields, no managers of them, no
watch that ends, and no controller behind it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR
from threading import Condition, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

from grocer.bundle import Bundle
from grocer.deployment import DeployConfig
from serving.cluster import Cluster
from serving.deploy import deploy
from serving.inference_service import DIGEST, Canary, Served, canary, fields, served

INFERENCE_SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/grocer/inferenceservices/"
DEPLOYMENTS = "/apis/apps/v1/namespaces/grocer/deployments"
CORE = "/api/v1/namespaces/grocer"
STOP = "serving.kserve.io/stop"
OLD = "0" * 64
READY: dict[str, Any] = {"ready": True}
NAMES = ["Organic Bananas"]


def container(name: str = "kserve-container", **state: Any) -> dict[str, Any]:
    """A container's status: `waiting=reason` or `ended=exit code`, and its restarts."""
    made: dict[str, Any] = {"name": name, "restartCount": state.get("restarts", 0), "state": {}}
    made["ready"] = state.get("ready", False)
    if reason := state.get("waiting"):
        made["state"] = {"waiting": {"reason": reason, "message": state.get("message", reason)}}
    if "ended" in state:
        how = {"exitCode": state["ended"], "reason": state.get("reason", "Error")}
        how["message"] = state.get("said", "")
        made["lastState"] = {"terminated": how}
    return made


class Api(ThreadingHTTPServer):
    """Started and stopped as a context; `cluster` talks to it."""

    def __init__(self, fates: Mapping[str, Any], first: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.fates, self.log = dict(fates), "Traceback\n  ...\ngrocer: it said why\n"
        self.refusals: list[tuple[int, dict[str, Any] | str]] = []
        """What the next changes are answered with, in order."""
        self.watches: list[str] = []
        """How the next watches go: see `_watch`; then they hold."""
        self.applied: list[dict[str, Any]] = []
        self.answers_with: str | None = None
        self.warnings: list[dict[str, Any]] = []
        self.controller_runs, self.status = True, dict[str, Any]()
        self.headless, self.replicas = False, 1
        self.overtaken_by = ""
        """Digest of what another run deploys as soon as this one waits."""
        self.changed = Condition()
        self.service: dict[str, Any] | None = {
            "metadata": {"name": "grocer", "generation": 1, "managedFields": []},
            "spec": {"predictor": {"minReplicas": 1, "model": {"modelFormat": {"name": "grocer"}}}},
        }
        if first:
            self.apply(fields(self.config(), Served(f"s3://b/{first}", first, "grocer")))
            self.applied.clear()
        self.taken_up = deepcopy(self.service)

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

    def config(self, **more: Any) -> DeployConfig:
        given = {"store": "s3://b", "address": self.url, "timeout_seconds": 1.0, **more}
        return DeployConfig.model_validate(given)

    def deploy(self, bundle: Bundle, **more: Any) -> list[dict[str, Any]]:
        return deploy(bundle, self.config(**more), NAMES, self.cluster)

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that names this cluster."""
        written = {
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(json.dumps(written))
        return path

    def apply(self, given: dict[str, Any]) -> None:
        """Merge what deploy owns; what it owned before and no longer names goes."""
        assert self.service is not None
        with self.changed:
            self.applied.append(given)
            metadata, spec = self.service["metadata"], self.service["spec"]
            metadata["generation"] += 1
            metadata["annotations"] = given["metadata"].get("annotations", {})
            owned = {f"f:{name}": {} for name in metadata["annotations"]}
            metadata["managedFields"] = [
                {
                    "manager": "grocer-deploy",
                    "operation": "Apply",
                    "fieldsV1": {"f:metadata": {"f:annotations": owned}},
                }
            ]
            spec["predictor"]["name"] = given["spec"]["predictor"].get("name", "")
            spec["predictor"]["model"] = deepcopy(given["spec"]["predictor"]["model"])
            spec["canary"] = deepcopy(given["spec"].get("canary"))
            self.changed.notify_all()

    def stop(self, manager: str) -> None:
        """Have somebody else annotate the InferenceService, so that it has no pods."""
        assert self.service is not None
        owned = {"f:metadata": {"f:annotations": {f"f:{STOP}": {}}}}
        self.service["metadata"]["annotations"] = {STOP: "true"}
        self.service["metadata"]["managedFields"] += [{"manager": manager, "fieldsV1": owned}]

    def reconcile(self) -> None:
        """What KServe's controller does whenever it looks."""
        if self.controller_runs and self.service:
            self.taken_up = deepcopy(self.service)
            found = canary(self.service)
            told = {"name": found.served.part, "trafficPercent": found.percent} if found else None
            self.status["canaryStatuses"] = [told] if told else []

    @property
    def model(self) -> dict[str, Any]:
        assert self.service is not None
        found: dict[str, Any] = self.service["spec"]["predictor"]["model"]
        return found

    @property
    def canary(self) -> Canary | None:
        assert self.service is not None
        return canary(self.service)

    def deployments(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Digest and fate of each predictor's Deployment, by its name."""
        self.reconcile()
        assert self.taken_up is not None
        stable, beside = served(self.taken_up), canary(self.taken_up)
        told = [each for each in (stable, beside and beside.served) if each]
        return {
            each.deployment("grocer"): (each.digest, self.fates.get(each.digest, READY))
            for each in told
        }

    def deployment(self, name: str) -> dict[str, Any] | None:
        if name not in self.deployments():
            return None
        digest, fate = self.deployments()[name]
        count = self.replicas if fate.get("ready") else 0
        refused = fate.get("refused")
        failure = {"type": "ReplicaFailure", "status": "True", "message": refused}
        return {
            "metadata": {"name": name, "generation": 2},
            "spec": {"replicas": self.replicas, "template": {"spec": _pod_spec(digest)}},
            "status": {
                "observedGeneration": 2,
                "replicas": self.replicas,
                "updatedReplicas": self.replicas,
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
        query, name = parse_qs(parts.query), parts.path.rpartition("/")[2]
        if parts.path.startswith(INFERENCE_SERVICES):
            self._service()
        elif parts.path == DEPLOYMENTS:
            assert query["labelSelector"] == ["serving.kserve.io/inferenceservice=grocer"]
            self._watch(float(query["timeoutSeconds"][0]))
        elif parts.path.startswith(DEPLOYMENTS):
            found = self.server.deployment(name)
            self._send(200, found) if found else self._missing("deployments.apps", name)
        elif parts.path == f"{CORE}/pods":
            self._send(200, {"items": self.server.pods()})
        elif parts.path == f"{CORE}/events":
            self._send(200, {"items": self.server.warnings})
        elif parts.path.startswith(f"{CORE}/services/"):
            spec = {"clusterIP": "None" if self.server.headless else "10.96.0.7"}
            ports = [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]
            self._send(200, {"spec": {**spec, "ports": ports}})
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
            or (self.server.canary and self.server.canary.served.digest)
            or self.server.model["env"][0]["value"]
        )
        answer = {"predictions": [{"department": "produce", "probability": 0.9} for _ in names]}
        self._send(200, answer, {"x-model-digest": digest})

    def _service(self) -> None:
        if self.server.service is None:
            self._missing("inferenceservices.serving.kserve.io", "grocer")
        elif not self.server.service:
            self._send(404, "404 page not found")
        else:
            self.server.reconcile()
            self._send(200, {**self.server.service, "status": self.server.status})

    def _missing(self, kind: str, name: str) -> None:
        self._send(404, refusal(f'{kind} "{name}" not found', name))

    def _watch(self, seconds: float) -> None:
        how = self.server.watches.pop(0) if self.server.watches else ""
        if how == "forbidden":
            said = 'deployments.apps is forbidden: User "u" cannot watch resource "deployments"'
            self._send(403, refusal(said, ""))
            return
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.close_connection = True
        if how == "gone":
            self._event("ERROR", {"code": 410, "reason": "Expired", "message": "too old"})
            return
        if how == "broken":
            self.wfile.write(b'{"type": "ADD')
            return
        if how == "cut":
            self.connection.shutdown(SHUT_RDWR)
            return
        if how == "ready":
            self.server.fates.clear()
        if self.server.overtaken_by:
            other, self.server.overtaken_by = self.server.overtaken_by, ""
            self.server.apply(
                fields(self.server.config(), Served(f"s3://b/{other}", other, "grocer"))
            )
        for name in self.server.deployments():
            self._event("ADDED", self.server.deployment(name))
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
