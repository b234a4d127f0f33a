"""Tests of scaling to zero and back, and to several pods, with the component scale-to-zero.

Requires what test_canary requires, KEDA, and a Prometheus at the address in the component that
scrapes the Gateway and the predictors. The tests depend on each other, in this order.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.cluster.api import Api, is_ready, predictor_pods, wait_until
from tests.cluster.bundles import Bundles, digest_of
from tests.cluster.client import GATEWAY, Gateway, Report, summary
from tests.cluster.pods import DeployStep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

PREDICT = "/v1/models/grocer:predict"
BODY = {"instances": ["Organic Milk"]}
IDLE_SECONDS = 600
"""Limit of the wait: one minute of the query, and five of KEDA's cooldown."""


@pytest.fixture(scope="module")
def step(api: Api, new_canary_step: Callable[..., DeployStep]) -> DeployStep:
    """The deploy step; the query covers one minute of the namespace's requests, not ten.

    KServe creates the route of the InferenceService, by which a deploy starts a pod, at the first
    deploy. So that one has a pod.
    """
    if not api.serves("keda.sh/v1alpha1", "ScaledObject"):
        pytest.skip("KEDA is not installed")
    step = new_canary_step("scale-to-zero")
    namespace, path = step.namespaces.serving, _path(step)
    metrics = json.dumps(api.get(path)["spec"]["predictor"]["autoScaling"]["metrics"])
    metrics = metrics.replace("[10m]", "[1m]").replace("offset 10m", "offset 1m")
    metrics = metrics.replace("httproute-grocer-", f"httproute-{namespace}-")
    metrics = metrics.replace('namespace=\\"grocer\\"', f'namespace=\\"{namespace}\\"')
    scaling = {"minReplicas": 1, "autoScaling": {"metrics": json.loads(metrics)}}
    # Clients on the node of the predictor do not leave it enough CPU for the manifest's limit.
    scaling["autoScaling"]["metrics"][0]["external"]["target"]["value"] = "0.1"
    api.patch(path, {"spec": {"predictor": scaling}})
    return step


def _path(step: DeployStep) -> str:
    """Return the path of the InferenceService."""
    namespace = step.namespaces.serving
    return f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/grocer"


@pytest.fixture(scope="module")
def replicas(api: Api, step: DeployStep) -> Callable[[], int | None]:
    """Returns the number of pods that KEDA has set for the predictor."""
    path = f"/apis/apps/v1/namespaces/{step.namespaces.serving}/deployments/grocer-predictor"
    return lambda: (api.get(path) or {"spec": {"replicas": None}})["spec"]["replicas"]


def _wait_for_zero(replicas: Callable[[], int | None]) -> float:
    """Wait until there are no pods, and return the time in seconds."""
    start = time.monotonic()
    wait_until("KEDA removes all pods", lambda: replicas() == 0, timeout=IDLE_SECONDS)
    return time.monotonic() - start


def _send(gateway: Gateway) -> tuple[int, Any, dict[str, str]]:
    (response,) = gateway.client.request((f"{GATEWAY}{PREDICT}", BODY, gateway.host))
    return response


def test_pods_are_removed_without_requests(
    step: DeployStep,
    gateway: Gateway,
    bundles: Bundles,
    replicas: Callable[[], int | None],
    report: Report,
) -> None:
    result = step.run(bundles.first)
    assert result.exit_code == 0, result.log
    # KEDA removes the pods of a ScaledObject that was never active without its cooldown.
    scaler = f"/apis/keda.sh/v1alpha1/namespaces/{gateway.namespace}/scaledobjects/grocer-predictor"

    def is_active() -> bool:
        assert _send(gateway)[0] == 200
        conditions = gateway.api.get(scaler)["status"]["conditions"]
        return any(c["type"] == "Active" and c["status"] == "True" for c in conditions)

    wait_until("KEDA sees the requests", is_active)
    gateway.api.patch(_path(step), {"spec": {"predictor": {"minReplicas": 0}}})
    report(f"scaled to zero {_wait_for_zero(replicas):.0f} s after the last request")
    # The last pod answers until the gateway knows that it terminates.
    wait_until("the gateway has no pod", lambda: _send(gateway)[0] == 503, timeout=30)


def test_request_starts_a_pod(
    gateway: Gateway, bundles: Bundles, replicas: Callable[[], int | None], report: Report
) -> None:
    start = time.monotonic()
    wait_until("KEDA starts a pod", replicas, timeout=120)
    scaled = time.monotonic() - start
    answer = wait_until("a response", lambda: _answer(gateway), timeout=300)
    report(
        f"scaled from zero after {scaled:.0f} s, answered after {time.monotonic() - start:.0f} s"
    )
    assert answer["x-model-digest"] == digest_of(bundles.first)


def _answer(gateway: Gateway) -> dict[str, str] | None:
    """Return the headers of a successful response, None if it is not successful."""
    status, _, headers = _send(gateway)
    return {key.lower(): value for key, value in headers.items()} if status == 200 else None


def test_deploy_starts_a_pod(
    step: DeployStep,
    gateway: Gateway,
    bundles: Bundles,
    replicas: Callable[[], int | None],
    report: Report,
) -> None:
    _wait_for_zero(replicas)
    service = gateway.api.get("/api/v1/namespaces/kserve/services/kserve-ingress-gateway")
    at_gateway = replace(step, hosts={gateway.host: service["spec"]["clusterIP"]})
    result = at_gateway.run(bundles.second, address=f"http://{gateway.host}")
    assert result.exit_code == 0, result.log
    report(f"deploy without pods: {result.seconds:.0f} s")
    answer = wait_until("a response", lambda: _answer(gateway), timeout=60)
    assert answer["x-model-digest"] == digest_of(bundles.second)


def test_load_adds_pods(
    gateway: Gateway, replicas: Callable[[], int | None], report: Report
) -> None:
    start = time.monotonic()
    with gateway.load() as load:
        wait_until("KEDA adds a pod", lambda: (replicas() or 0) > 1, timeout=300)
        added = time.monotonic() - start
        wait_until(
            "two pods are ready",
            lambda: sum(map(is_ready, predictor_pods(gateway.api, gateway.namespace))) > 1,
            timeout=300,
        )
        time.sleep(10)
    report(f"load: pod added after {added:.0f} s; {summary(load)}")
    assert load["failed"] == 0, load["failures"]
