"""Tests of a canary behind a gateway: shares of the traffic, rollback and promotion under load.

Requires KServe, its Gateway as in kind/gateway.yaml, the predictor image and a store. The tests
depend on each other, in this order.
"""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from serving.rollout.traffic import traffic_percent
from tests.cluster.api import predictor_pods
from tests.cluster.bundles import Bundles, digest_of
from tests.cluster.client import Gateway, Report, summary
from tests.cluster.pods import DeployStep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PERCENT = 20
REQUESTS = 2000


@pytest.fixture(scope="module")
def step(new_canary_step: Callable[..., DeployStep]) -> DeployStep:
    """The deploy step, in namespaces of its own."""
    return new_canary_step()


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
    stable: str, step: DeployStep, gateway: Gateway, bundles: Bundles, report: Report
) -> None:
    with gateway.load() as during:
        service = _start_canary(step, bundles)
    assert during["failed"] == 0, during["failures"]
    assert traffic_percent(gateway.route, service) == PERCENT
    sent: dict[str, int] = {}
    while sum(sent.values()) < REQUESTS:
        with gateway.load() as load:
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


def test_rollback_fails_no_request(stable: str, gateway: Gateway, report: Report) -> None:
    with gateway.load() as load:
        line = _grocer("rollback", gateway.namespace)
        time.sleep(5)
    assert stable in line
    report(f"rollback: {summary(load)}")
    assert load["failed"] == 0, load["failures"]
    assert gateway.digests(2) == [stable]
    pods = predictor_pods(gateway.api, gateway.namespace)
    assert pods
    assert all(stable in str(pod["spec"]) for pod in pods)


def test_promotion_fails_no_request(
    stable: str, step: DeployStep, gateway: Gateway, bundles: Bundles, report: Report
) -> None:
    host, promoted = gateway.host, digest_of(bundles.second)
    _start_canary(step, bundles)
    with gateway.load() as load:
        line = _grocer("promote", gateway.namespace)
        time.sleep(5)
    assert promoted in line
    report(f"promotion: {summary(load)}")
    assert load["failed"] == 0, load["failures"]
    assert gateway.host == host
    assert gateway.digests(2) == [promoted]
