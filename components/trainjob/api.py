"""TrainJobs, their pods and logs, in the Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from components.trainjob import CONTAINER, GROUP, VERSION
from serving.rollout.kubernetes import Cluster, NotFoundError, custom_resource


class TrainJobs(Cluster):
    """The TrainJobs of a namespace, and the logs of their pods."""

    hints: ClassVar[Mapping[int, str]] = {
        **Cluster.hints,
        403: "apply manifests/trainer, and run the steps as grocer-pipeline",
    }
    missing = "the cluster has no resource TrainJob; install Kubeflow Trainer (docs/cluster.md)"

    def __init__(self, namespace: str) -> None:
        super().__init__(namespace)
        self._train_jobs = custom_resource(self._api, GROUP, VERSION, "TrainJob", "trainjobs")

    def find(self, name: str) -> dict[str, Any] | None:
        """Return a TrainJob, or None if it does not exist."""
        try:
            job = self._call(self._train_jobs.get, name=name, namespace=self.namespace)
        except NotFoundError as error:
            if str(error) == self.missing:
                raise
            return None
        found: dict[str, Any] = job.to_dict()
        return found

    def create(self, body: Mapping[str, Any]) -> None:
        """Create a TrainJob.

        Raises:
            ChangedError: it exists.
            DeployError: Kubeflow Trainer or its runtime is missing, or access is denied.
        """
        self._call(self._train_jobs.create, body=body, namespace=self.namespace)

    def delete(self, name: str) -> None:
        """Delete a TrainJob; it is gone once its pods are."""
        options = {"propagationPolicy": "Foreground"}
        self._call(self._train_jobs.delete, name=name, namespace=self.namespace, body=options)

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
