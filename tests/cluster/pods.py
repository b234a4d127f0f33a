"""Manifests of pods that the restricted profile admits, and the deploy step in a pod."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.api import Api, apply, kubectl
from tests.cluster.installation import Namespaces
from tests.manifests.kustomize import Object

_DEPLOY = (Path(__file__).parent / "inside/deploy.py").read_text()
_SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_CONFIG_KEYS = ("AWS_ENDPOINT_URL", "AWS_REGION")


def pod(name: str, namespace: str, image: str, command: list[str]) -> Object:
    """Return a pod that runs a command as user 1000, with only /tmp writable."""
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
class DeployResult:
    """The result of a deploy step."""

    exit_code: int
    log: str
    seconds: float

    @property
    def last_line(self) -> str:
        return self.log.strip().splitlines()[-1]

    @property
    def output(self) -> list[dict[str, Any]]:
        """Predictions of the smoke test, or decisions; fails the test if deploy failed."""
        assert self.exit_code == 0, self.log
        return json.loads(self.last_line)


@dataclass(frozen=True)
class DeployStep:
    """Runs the deploy step as the pipeline does: in a pod, with the ServiceAccount of deploy."""

    api: Api
    namespaces: Namespaces
    image: str
    store: str
    """URI prefix where bundles are published."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Addresses of host names that the cluster's DNS does not have."""

    def run(
        self, uri: str, poll: Callable[[], object] = lambda: None, **settings: Any
    ) -> DeployResult:
        """Deploy the bundle at `uri`, without validating it, and wait for the result.

        Args:
            poll: called repeatedly while the step runs.
            settings: settings of `DeployConfig`.
        """
        name = f"deploy-{time.time_ns()}"
        config = {"namespace": self.namespaces.serving, "store": self.store, **settings}
        command = ["python", "-W", "ignore", "-c", _DEPLOY, uri, json.dumps(config)]
        manifest = pod(name, self.namespaces.steps, self.image, command)
        manifest["metadata"]["labels"] = {"pipelines.kubeflow.org/v2_component": "true"}
        manifest["spec"] |= {
            "serviceAccountName": "grocer-deploy",
            "automountServiceAccountToken": True,
            "hostAliases": [{"ip": ip, "hostnames": [host]} for host, ip in self.hosts.items()],
        }
        manifest["spec"]["containers"][0]["env"] = [
            {"name": key, "valueFrom": {source: {"name": "grocer-s3", "key": key}}}
            for source, keys in (("secretKeyRef", _SECRET_KEYS), ("configMapKeyRef", _CONFIG_KEYS))
            for key in keys
        ]
        apply([manifest])
        start, path = time.monotonic(), f"/api/v1/namespaces/{self.namespaces.steps}/pods/{name}"
        while (phase := self._phase(path)) not in ("Succeeded", "Failed"):
            assert time.monotonic() - start < 600, f"{name} is {phase}"
            poll()
            time.sleep(0.2)
        seconds = time.monotonic() - start
        log = kubectl("logs", "-n", self.namespaces.steps, name)
        state = (self.api.get(path) or {})["status"]["containerStatuses"][0]["state"]
        kubectl("delete", "pod", "-n", self.namespaces.steps, name, "--wait=false")
        return DeployResult(state["terminated"]["exitCode"], log, seconds)

    def _phase(self, path: str) -> str:
        return (self.api.get(path) or {}).get("status", {}).get("phase", "Pending")
