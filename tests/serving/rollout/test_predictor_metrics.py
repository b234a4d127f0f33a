"""Counters of pods that restart, appear, disappear or do not respond."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from grocer.release.bundle import LoadedBundle
from serving.rollout.inference_service import DIGEST_ENV
from serving.rollout.predictor_metrics import PredictorMetrics
from tests.fixtures.kubernetes_api import OLD
from tests.fixtures.metrics_server import MetricsServer, Traffic
from tests.fixtures.predictor_process import Running


class Pods:
    """The part of a cluster that lists pods."""

    def __init__(self) -> None:
        self.servers: dict[str, MetricsServer] = {}

    def pods(self, selector: str) -> list[Any]:
        assert selector == "serving.kserve.io/inferenceservice=grocer"
        return [pod(name, server.server_port) for name, server in self.servers.items()]


def pod(name: str, port: int, digest: str = OLD, ip: str | None = "127.0.0.1") -> Any:
    container = SimpleNamespace(
        name="kserve-container",
        env=[SimpleNamespace(name=DIGEST_ENV, value=digest)],
        ports=[SimpleNamespace(container_port=port)],
    )
    return SimpleNamespace(
        metadata=SimpleNamespace(name=name),
        spec=SimpleNamespace(containers=[container]),
        status=SimpleNamespace(pod_ip=ip),
    )


@pytest.fixture
def simulated(stub_bundle: LoadedBundle) -> Iterator[MetricsServer]:
    with MetricsServer(stub_bundle, Traffic(requests=10)) as server:
        server.simulate()
        yield server


@pytest.fixture
def other(stub_bundle: LoadedBundle) -> Iterator[MetricsServer]:
    with MetricsServer(stub_bundle, Traffic(requests=3)) as server:
        server.simulate()
        yield server


@pytest.fixture
def pods(simulated: MetricsServer) -> Pods:
    pods = Pods()
    pods.servers["a"] = simulated
    return pods


@pytest.fixture
def metrics(pods: Pods) -> PredictorMetrics:
    metrics = PredictorMetrics(pods, "grocer", OLD)
    assert metrics.read().requests == 0
    return metrics


def test_only_requests_after_the_first_read_count(metrics: PredictorMetrics) -> None:
    assert metrics.read().requests == 10
    window = metrics.read()
    assert (window.requests, window.answered, window.items) == (20, 20, 20)
    assert sum(window.departments.values()) == 20
    assert window.confidence == pytest.approx(16)
    assert sum(window.durations.values()) == 20


def test_restarted_container_counts_from_zero(
    metrics: PredictorMetrics, simulated: MetricsServer
) -> None:
    for _ in range(3):
        metrics.read()
    simulated.restart(started=4e9)
    window = metrics.read()
    assert window.requests == 40
    assert min(window.departments.values()) >= 0
    assert min(window.durations.values()) >= 0


def test_pods_are_summed_and_removed_pods_keep_their_counts(
    metrics: PredictorMetrics, pods: Pods, other: MetricsServer
) -> None:
    other.restart(started=4e9)
    pods.servers["b"] = other
    assert metrics.read().requests == 10 + 3
    del pods.servers["a"]
    assert metrics.read().requests == 10 + 6


def test_past_of_an_older_pod_does_not_count(
    metrics: PredictorMetrics, pods: Pods, other: MetricsServer
) -> None:
    """It did not respond at the first read."""
    pods.servers["b"] = other
    assert metrics.read().requests == 10
    assert metrics.read().requests == 20 + 3


def test_unreadable_pod_is_named_and_keeps_its_counts(
    metrics: PredictorMetrics, simulated: MetricsServer
) -> None:
    metrics.read()
    simulated.reachable = False
    assert metrics.read().requests == 10
    assert "pod a" in metrics.problem
    simulated.reachable = True
    assert metrics.read().requests == 20
    assert metrics.problem == ""


@pytest.mark.parametrize("skipped", [{"digest": "f" * 64}, {"ip": None}])
def test_pods_of_other_bundles_and_without_address_are_skipped(
    pods: Pods, simulated: MetricsServer, skipped: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [pod("a", simulated.server_port, **skipped)]
    monkeypatch.setattr(pods, "pods", lambda selector: found)
    metrics = PredictorMetrics(pods, "grocer", OLD)
    assert [metrics.read().requests for _ in range(2)] == [0, 0]


def test_ipv6_address_is_tried(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "pods", lambda selector: [pod("a", 1, ip="::1")])
    metrics = PredictorMetrics(pods, "grocer", OLD)
    metrics.read()
    assert "refused" in metrics.problem or "Cannot assign" in metrics.problem


def test_metrics_of_a_real_predictor(server: Running, pods: Pods) -> None:
    """Without a start time, a restarted container would not be noticed."""
    port = urlsplit(server.url).port
    pods.servers = {"a": SimpleNamespace(server_port=port)}
    metrics = PredictorMetrics(pods, "grocer", OLD)
    before = metrics.read()
    assert (before.requests, metrics.problem) == (0, "")
    assert all(started > 1e9 for _, started in metrics._first)
    for _ in range(5):
        server.predict("Milk", "Bread")
    server.post("/v2/models/grocer/infer", json={})
    server.get("/v2/models/grocer/ready")
    window = metrics.read()
    while window.requests < 6:  # a request is counted after its response
        window = metrics.read()
    assert (window.requests, window.answered, window.failed, window.items) == (6, 5, 0, 10)
    assert sum(window.durations.values()) == 6
    assert window.seconds > 0
    assert sum(window.departments.values()) == 10
    assert 0 < window.confidence_squared <= window.confidence <= 10
    assert window.independent == 0.5
