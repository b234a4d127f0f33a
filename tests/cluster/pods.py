"""Pods that the restricted profile admits, and the step that deploys, run in one of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.api import Api, applied, kubectl
from tests.cluster.release import Namespaces
from tests.manifests.kustomize import Object

_STEP = (Path(__file__).parent / "inside/step.py").read_text()
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_PLACE = ("AWS_ENDPOINT_URL", "AWS_REGION")


def pod(name: str, namespace: str, image: str, command: list[str]) -> Object:
    """A pod that runs a command as user 1000, with nothing to write to but /tmp."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "command": command,
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


@dataclass(frozen=True)
class Ended:
    """How a deploy step ended."""

    code: int
    log: str
    seconds: float

    @property
    def last(self) -> str:
        return self.log.strip().splitlines()[-1]

    @property
    def answers(self) -> list[dict[str, Any]]:
        assert self.code == 0, self.log
        return json.loads(self.last)


@dataclass(frozen=True)
class Steps:
    """Runs the deploy step as the pipeline does: in a pod, by the pipeline's account."""

    api: Api
    namespaces: Namespaces
    image: str
    store: str

    def deploy(
        self, address: str, look: Callable[[], object] = lambda: None, **settings: Any
    ) -> Ended:
        """Deploy the bundle at `address`, unchecked; `look` is called while it goes on."""
        name = f"deploy-{time.time_ns()}"
        config = {"namespace": self.namespaces.serving, "store": self.store, **settings}
        command = ["python", "-W", "ignore", "-c", _STEP, address, json.dumps(config)]
        made = pod(name, self.namespaces.steps, self.image, command)
        made["metadata"]["labels"] = {"pipelines.kubeflow.org/v2_component": "true"}
        made["spec"] |= {
            "serviceAccountName": "grocer-pipeline",
            "automountServiceAccountToken": True,
        }
        made["spec"]["containers"][0]["env"] = [
            {"name": key, "valueFrom": {source: {"name": "grocer-s3", "key": key}}}
            for source, keys in (("secretKeyRef", _KEYS), ("configMapKeyRef", _PLACE))
            for key in keys
        ]
        applied([made])
        begun, path = time.monotonic(), f"/api/v1/namespaces/{self.namespaces.steps}/pods/{name}"
        while (phase := self._phase(path)) not in ("Succeeded", "Failed"):
            assert time.monotonic() - begun < 600, f"{name} is {phase}"
            look()
            time.sleep(0.2)
        seconds = time.monotonic() - begun
        log = kubectl("logs", "-n", self.namespaces.steps, name)
        state = (self.api.get(path) or {})["status"]["containerStatuses"][0]["state"]
        kubectl("delete", "pod", "-n", self.namespaces.steps, name, "--wait=false")
        return Ended(state["terminated"]["exitCode"], log, seconds)

    def _phase(self, path: str) -> str:
        return (self.api.get(path) or {}).get("status", {}).get("phase", "Pending")
