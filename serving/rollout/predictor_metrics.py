"""Read the counters of each pod of a predictor from its `/metrics`."""

from __future__ import annotations

import http.client
import time

from kubernetes.client import V1Pod
from prometheus_client.parser import text_string_to_metric_families

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from serving.rollout.analysis import Counters, Window
from serving.rollout.inference_service import read_state
from serving.rollout.kubernetes import Cluster
from serving.rollout.readiness import CONTAINER, LABEL, bundle_digest
from serving.rollout.smoke_test import OPENER

_REQUEST_SECONDS = 5.0
_MAX_BYTES = 16 * 1024**2
_START = "process_start_time_seconds"
Process = tuple[str, float]
"""Pod name, and start time in seconds since the epoch: a container that restarts counts from 0."""


class PredictorMetrics:
    """Counters of all pods with a bundle, since this object was created.

    A Service would send each request to another pod, so that the pods are read one by one.
    """

    def __init__(self, cluster: Cluster, service: str, digest: str) -> None:
        self._cluster, self._digest = cluster, digest
        self._selector = f"{LABEL}={service}"
        self._since = time.time()
        self._first: dict[Process, Counters] = {}
        self._last: dict[Process, Counters] = {}
        self.problem = ""
        """Why a pod could not be read at the last call of `read`."""

    def read(self) -> Window:
        """Return what the predictor did since the first call; a pod that fails keeps its counts.

        Raises:
            DeployError: the pods cannot be listed.
        """
        self.problem = ""
        for pod in self._cluster.pods(self._selector):
            if bundle_digest(pod) != self._digest or not pod.status.pod_ip:
                continue
            try:
                counters = _read(pod)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.problem = f"the metrics of pod {pod.metadata.name} are not readable: {error}"
                continue
            started = next((value for (name, _), value in counters.items() if name == _START), 0.0)
            process = (pod.metadata.name, started)
            # What an older process did before it was first read is not part of the window.
            self._first.setdefault(process, counters if started <= self._since else {})
            self._last[process] = counters
        return Window.between(self._first, self._last)


def require_metrics(config: DeployConfig) -> None:
    """Check that the metrics of the stable predictor are readable from this machine.

    Raises:
        DeployError: they are not, or there is no InferenceService.
    """
    cluster = Cluster(config.namespace)
    stable = read_state(cluster.inference_service(config.name)).champion
    metrics = PredictorMetrics(cluster, config.name, stable.digest if stable else "")
    metrics.read()
    if metrics.problem:
        raise DeployError(
            f"{metrics.problem}; nothing was changed: run this command where the addresses of pods "
            "are reachable, in a pod that the network policies admit"
        )


def _read(pod: V1Pod) -> Counters:
    """Return the counters of a pod, at the first port of the predictor's container."""
    container = next(each for each in pod.spec.containers if each.name == CONTAINER)
    host = f"[{pod.status.pod_ip}]" if ":" in pod.status.pod_ip else pod.status.pod_ip
    url = f"http://{host}:{container.ports[0].container_port}/metrics"
    with OPENER.open(url, timeout=_REQUEST_SECONDS) as response:
        text = response.read(_MAX_BYTES).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): float(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("grocer_") or sample.name == _START
    }
