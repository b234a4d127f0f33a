"""Counters of pods that restart, appear, disappear or do not respond."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from grocer.release.bundle import LoadedBundle
from serving.rollout.inference_service import DIGEST_ENV
from serving.rollout.predictor_metrics import PredictorMetrics
from tests.fixtures.kubernetes_api import OLD
from tests.fixtures.metrics_server import MetricsServer, Traffic


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
def server(stub_bundle: LoadedBundle) -> Iterator[MetricsServer]:
    with MetricsServer(stub_bundle, Traffic(requests=10)) as server:
        server.simulate()
        yield server


@pytest.fixture
def other(stub_bundle: LoadedBundle) -> Iterator[MetricsServer]:
    with MetricsServer(stub_bundle, Traffic(requests=3)) as server:
        server.simulate()
        yield server


@pytest.fixture
def pods(server: MetricsServer) -> Pods:
    pods = Pods()
    pods.servers["a"] = server
    return pods


@pytest.fixture
def metrics(pods: Pods) -> PredictorMetrics:
    metrics = PredictorMetrics(pods, "grocer", OLD)  # type: ignore[arg-type]
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
    metrics: PredictorMetrics, server: MetricsServer
) -> None:
    for _ in range(3):
        metrics.read()
    server.restart(started=4e9)
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
    metrics: PredictorMetrics, server: MetricsServer
) -> None:
    metrics.read()
    server.reachable = False
    assert metrics.read().requests == 10
    assert "pod a" in metrics.problem
    server.reachable = True
    assert metrics.read().requests == 20
    assert metrics.problem == ""


@pytest.mark.parametrize("skipped", [{"digest": "f" * 64}, {"ip": None}])
def test_pods_of_other_bundles_and_without_address_are_skipped(
    pods: Pods, server: MetricsServer, skipped: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [pod("a", server.server_port, **skipped)]
    monkeypatch.setattr(pods, "pods", lambda selector: found)
    metrics = PredictorMetrics(pods, "grocer", OLD)  # type: ignore[arg-type]
    assert [metrics.read().requests for _ in range(2)] == [0, 0]


def test_ipv6_address_is_tried(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "pods", lambda selector: [pod("a", 1, ip="::1")])
    metrics = PredictorMetrics(pods, "grocer", OLD)  # type: ignore[arg-type]
    metrics.read()
    assert "refused" in metrics.problem or "Cannot assign" in metrics.problem
