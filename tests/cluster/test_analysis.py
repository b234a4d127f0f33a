"""Tests of analysed canaries behind a gateway: good ones are promoted, bad ones rolled back.

Requires KServe, its Gateway as in kind/gateway.yaml, the predictor image and a store. The tests
depend on each other, in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.api import Api, kubectl
from tests.cluster.bundles import Bundles, digest_of, upload_candidates
from tests.cluster.client import GATEWAY, Client, http_route, route_host, start_client, summary
from tests.cluster.installation import Store
from tests.cluster.pods import DeployStep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

FAULTS = {"errors": "error_rate", "slow": "latency", "labels": "departments"}
"""Faults of inside/faulty_predictor.py, and a signal that each one fails."""
SETTINGS = {"canary": [20, 50], "analysis": True, "analysis_requests": 200}
Report = Callable[[str], None]


@pytest.fixture(scope="module")
def candidates(
    store: Store,
    base: Path,
    signing_key: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """URIs of a bundle for each fault, and of one without."""
    root = tmp_path_factory.mktemp("candidates")
    return upload_candidates(store, root, base, signing_key[0], [*FAULTS, "good"])


@pytest.fixture(scope="module")
def step(new_canary_step: Callable[..., DeployStep], candidates: dict[str, str]) -> DeployStep:
    """The deploy step, with predictors that are faulty for some bundles."""
    return new_canary_step({digest_of(candidates[fault]): fault for fault in FAULTS})


@pytest.fixture(scope="module")
def gateway_client(step: DeployStep) -> Client:
    """A running client pod that sends its requests to the gateway."""
    return start_client(step.namespaces.steps, step.image)


@pytest.fixture(scope="module")
def stable(step: DeployStep, bundles: Bundles) -> Iterator[str]:
    """Deploys the first bundle; its digest."""
    result = step.run(bundles.first)
    assert result.exit_code == 0, result.log
    yield digest_of(bundles.first)
    kubectl("delete", "isvc", "grocer", "-n", step.namespaces.serving)


def _backends(api: Api, step: DeployStep) -> int:
    """Return the number of Services that get traffic."""
    rules = http_route(api, step.namespaces.serving)["spec"]["rules"]
    return max(len(rule["backendRefs"]) for rule in rules)


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_canary_is_rolled_back(
    fault: str,
    stable: str,
    api: Api,
    step: DeployStep,
    gateway_client: Client,
    candidates: dict[str, str],
    report: Report,
) -> None:
    """No request to the stable predictor fails; only those to a canary that returns errors do."""
    with gateway_client.load(GATEWAY, route_host(api, step.namespaces.serving)) as load:
        result = step.run(candidates[fault], **SETTINGS)
    last = result.output[-1]
    failed = [signal["rule"] for signal in last["signals"] if not signal["passed"]]
    report(f"canary with {fault}: {last['action']} at {last['percent']} %, worse by {failed}")
    report(f"  {result.seconds:.0f} s; {summary(load)}")
    assert last["action"] == "roll_back"
    assert FAULTS[fault] in failed
    assert fault == "errors" or load["failed"] == 0, load["failures"]
    assert all("500" in failure for failure in load["failures"]), load["failures"]
    assert _backends(api, step) == 1
    with gateway_client.load(GATEWAY, route_host(api, step.namespaces.serving)) as after:
        pass
    assert list(after["digests"]) == [stable]


def test_good_canary_is_promoted(
    stable: str,
    api: Api,
    step: DeployStep,
    gateway_client: Client,
    candidates: dict[str, str],
    report: Report,
) -> None:
    with gateway_client.load(GATEWAY, route_host(api, step.namespaces.serving)) as load:
        result = step.run(candidates["good"], **SETTINGS)
    last = result.output[-1]
    report(f"good canary: {last['action']} at {last['percent']} %: {last['reason']}")
    report(f"  {result.seconds:.0f} s; {summary(load)}")
    assert last["action"] == "promote", result.log
    assert load["failed"] == 0, load["failures"]
    assert _backends(api, step) == 1
    with gateway_client.load(GATEWAY, route_host(api, step.namespaces.serving)) as after:
        pass
    assert list(after["digests"]) == [digest_of(candidates["good"])]
    events = kubectl("get", "events", "-n", step.namespaces.serving, "-o", "name")
    assert events.count("event/grocer.") >= 4, events
