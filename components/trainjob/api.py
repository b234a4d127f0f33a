"""TrainJobs, their pods and logs, in the Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from components.trainjob import CONTAINER, GROUP, VERSION
from serving.rollout.kubernetes import Cluster, NotFoundError


class TrainJobs(Cluster):
    """The TrainJobs of a namespace, and the logs of their pods."""

    hints: ClassVar[Mapping[int, str]] = {
        **Cluster.hints,
        403: "apply manifests/trainer, and run the steps as grocer-pipeline",
    }
    missing = "the cluster has no resource TrainJob; install Kubeflow Trainer (docs/cluster.md)"

    @property
    def _jobs(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, "trainjobs"

    def find(self, name: str) -> dict[str, Any] | None:
        """Return a TrainJob, or None if it does not exist."""
        get = self._objects.get_namespaced_custom_object
        try:
            job: dict[str, Any] = self._call(get, *self._jobs, name)
        except NotFoundError as error:
            if str(error) == self.missing:
                raise
            return None
        return job

    def create(self, body: Mapping[str, Any]) -> None:
        """Create a TrainJob.

        Raises:
            ChangedError: it exists.
            DeployError: Kubeflow Trainer or its runtime is missing, or access is denied.
        """
        self._call(self._objects.create_namespaced_custom_object, *self._jobs, body)

    def delete(self, name: str) -> None:
        """Delete a TrainJob; it is gone once its pods are."""
        delete = self._objects.delete_namespaced_custom_object
        self._call(delete, *self._jobs, name, body={"propagationPolicy": "Foreground"})

    def owners(self, pod: str) -> list[dict[str, Any]]:
        """Return the owner references of a pod."""
        metadata = self._call(self._core.read_namespaced_pod, pod, self.namespace).metadata
        return [
            {"apiVersion": each.api_version, "kind": each.kind, "name": each.name, "uid": each.uid}
            for each in metadata.owner_references or []
        ]

    def log(self, pod: str, since_seconds: int | None) -> list[tuple[str, str]]:
        """Return the time stamp and text of each line in a pod's log."""
        response = self._call(
            self._core.read_namespaced_pod_log,
            pod,
            self.namespace,
            container=CONTAINER,
            timestamps=True,
            **({"since_seconds": since_seconds} if since_seconds else {}),
            _preload_content=False,
        )
        lines = response.data.decode(errors="replace").splitlines()
        return [(stamp, text) for stamp, _, text in (line.partition(" ") for line in lines)]
