"""Tests of a canary behind a gateway: shares of the traffic, rollback and promotion under load.

Requires KServe, its Gateway as in kind/gateway.yaml, the predictor image and a store. The tests
depend on each other, in this order.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from serving.rollout.traffic import traffic_percent
from tests.cluster.api import Api, kubectl, predictor_pods
from tests.cluster.bundles import Bundles, digest_of
from tests.cluster.client import GATEWAY, Client, http_route, route_host, start_client, summary
from tests.cluster.pods import DeployStep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PERCENT = 20
REQUESTS = 2000
Report = Callable[[str], None]


@pytest.fixture(scope="module")
def canary_deploy_step(new_canary_step: Callable[..., DeployStep]) -> DeployStep:
    """The deploy step, in namespaces of its own."""
    return new_canary_step()


@pytest.fixture(scope="module")
def namespace(canary_deploy_step: DeployStep) -> str:
    """The serving namespace."""
    return canary_deploy_step.namespaces.serving


@pytest.fixture(scope="module")
def gateway_client(canary_deploy_step: DeployStep) -> Client:
    """A running client pod that sends its requests to the gateway."""
    return start_client(canary_deploy_step.namespaces.steps, canary_deploy_step.image)


@pytest.fixture(scope="module")
def stable(canary_deploy_step: DeployStep, namespace: str, bundles: Bundles) -> Iterator[str]:
    """Deploys the first bundle; the digest of the stable revision."""
    result = canary_deploy_step.run(bundles.first)
    assert result.exit_code == 0, result.log
    yield digest_of(bundles.first)
    kubectl("delete", "isvc", "grocer", "-n", namespace)


def _start_canary(step: DeployStep, bundles: Bundles) -> str:
    """Deploy the second bundle as a canary and return the name of its Service."""
    result = step.run(bundles.second, canary=[PERCENT])
    assert result.exit_code == 0, result.log
    return f"grocer-c{digest_of(bundles.second)[:8]}-predictor"


def _grocer(command: str, namespace: str) -> str:
    """Run `grocer promote` or `grocer rollback` on this machine and return its last line."""
    arguments = [sys.executable, "-m", "pipelines.cli.main", command]
    arguments += ["--set", f"deploy.namespace={namespace}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().splitlines()[-1]


def test_canary_gets_its_share_of_the_requests(
    stable: str,
    api: Api,
    canary_deploy_step: DeployStep,
    gateway_client: Client,
    namespace: str,
    bundles: Bundles,
    report: Report,
) -> None:
    host = route_host(api, namespace)
    with gateway_client.load(GATEWAY, host) as during:
        service = _start_canary(canary_deploy_step, bundles)
    assert during["failed"] == 0, during["failures"]
    assert traffic_percent(http_route(api, namespace), service) == PERCENT
    sent: dict[str, int] = {}
    while sum(sent.values()) < REQUESTS:
        with gateway_client.load(GATEWAY, host) as load:
            time.sleep(30)
        assert load["failed"] == 0, load["failures"]
        for digest, count in load["digests"].items():
            sent[digest] = sent.get(digest, 0) + count
    assert set(sent) == {stable, digest_of(bundles.second)}
    total, found = sum(sent.values()), sent[digest_of(bundles.second)]
    share = PERCENT / 100
    report(f"canary with {PERCENT} %: {found} of {total} requests ({100 * found / total:.1f} %)")
    report(f"  while it started: {summary(during)}")
    # Probability of 0.1 % that a random split of this weight lies outside.
    assert abs(found - share * total) <= 3.29 * math.sqrt(total * share * (1 - share))


def test_rollback_fails_no_request(
    stable: str, api: Api, gateway_client: Client, namespace: str, bundles: Bundles, report: Report
) -> None:
    host = route_host(api, namespace)
    with gateway_client.load(GATEWAY, host) as load:
        line = _grocer("rollback", namespace)
        time.sleep(5)
    assert stable in line
    report(f"rollback: {summary(load)}")
    assert load["failed"] == 0, load["failures"]
    with gateway_client.load(GATEWAY, host) as after:
        time.sleep(2)
    assert list(after["digests"]) == [stable]
    assert {stable in str(pod["spec"]) for pod in predictor_pods(api, namespace)} == {True}


def test_promotion_fails_no_request(
    stable: str,
    api: Api,
    canary_deploy_step: DeployStep,
    gateway_client: Client,
    namespace: str,
    bundles: Bundles,
    report: Report,
) -> None:
    host, promoted = route_host(api, namespace), digest_of(bundles.second)
    _start_canary(canary_deploy_step, bundles)
    with gateway_client.load(GATEWAY, host) as load:
        line = _grocer("promote", namespace)
        time.sleep(5)
    assert promoted in line
    report(f"promotion: {summary(load)}")
    assert load["failed"] == 0, load["failures"]
    assert route_host(api, namespace) == host
    with gateway_client.load(GATEWAY, host) as after:
        time.sleep(2)
    assert list(after["digests"]) == [promoted]
