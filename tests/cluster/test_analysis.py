"""Tests of analysed canaries behind a gateway: good ones are promoted, bad ones rolled back.

Requires KServe, its Gateway as in kind/gateway.yaml, the predictor image and a store. The tests
depend on each other, in this order.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.api import kubectl
from tests.cluster.bundles import digest_of, upload_candidates
from tests.cluster.client import Gateway, Report, summary
from tests.cluster.installation import Store
from tests.cluster.pods import DeployStep

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

FAULTS = {"errors": "error_rate", "slow": "latency", "labels": "departments"}
"""Faults of inside/faulty_predictor.py, and a signal that each one fails."""
SETTINGS = {"canary": [20, 50], "analysis": True, "analysis_requests": 200}


@pytest.fixture(scope="module")
def candidates(
    store: Store,
    base: Path,
    signing_key: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """URIs of a bundle for each fault, and of two without."""
    root = tmp_path_factory.mktemp("candidates")
    return upload_candidates(store, root, base, signing_key[0], [*FAULTS, "good", "resumed"])


@pytest.fixture(scope="module")
def step(new_canary_step: Callable[..., DeployStep], candidates: dict[str, str]) -> DeployStep:
    """The deploy step, with predictors that are faulty for some bundles."""
    return new_canary_step(faults={digest_of(candidates[fault]): fault for fault in FAULTS})


class _KilledError(Exception):
    """The test has deleted the pod of the deploy step."""


def _backends(gateway: Gateway) -> int:
    """Return the number of Services that get traffic."""
    return max(len(rule["backendRefs"]) for rule in gateway.route["spec"]["rules"])


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_canary_is_rolled_back(
    fault: str,
    stable: str,
    step: DeployStep,
    gateway: Gateway,
    candidates: dict[str, str],
    report: Report,
) -> None:
    """No request to the stable predictor fails; only those to a canary that returns errors do."""
    with gateway.load() as load:
        result = step.run(candidates[fault], **SETTINGS)
    last = result.output[-1]
    failed = [signal["rule"] for signal in last["signals"] if not signal["passed"]]
    report(f"canary with {fault}: {last['action']} at {last['percent']} %, worse by {failed}")
    report(f"  {result.seconds:.0f} s; {summary(load)}")
    assert last["action"] == "roll_back"
    assert FAULTS[fault] in failed
    assert fault == "errors" or load["failed"] == 0, load["failures"]
    assert all("500" in failure for failure in load["failures"]), load["failures"]
    assert _backends(gateway) == 1
    assert gateway.digests() == [stable]


def test_good_canary_is_promoted(
    stable: str, step: DeployStep, gateway: Gateway, candidates: dict[str, str], report: Report
) -> None:
    with gateway.load() as load:
        result = step.run(candidates["good"], **SETTINGS)
    last = result.output[-1]
    report(f"good canary: {last['action']} at {last['percent']} %: {last['reason']}")
    report(f"  {result.seconds:.0f} s; {summary(load)}")
    assert last["action"] == "promote", result.log
    assert load["failed"] == 0, load["failures"]
    assert _backends(gateway) == 1
    assert gateway.digests() == [digest_of(candidates["good"])]
    events = kubectl("get", "events", "-n", step.namespaces.serving, "-o", "name")
    assert events.count("event/grocer.") >= 4, events


def test_step_that_was_killed_is_resumed(
    stable: str, step: DeployStep, gateway: Gateway, candidates: dict[str, str], report: Report
) -> None:
    """The canary keeps its traffic; the same step again continues from there."""
    steps = step.namespaces.steps

    def kill() -> None:
        if _backends(gateway) == 2:
            name = next(
                n
                for n in kubectl("get", "pods", "-n", steps, "-o", "name").split()
                if "deploy-" in n
            )
            kubectl("delete", name, "-n", steps, "--grace-period=0", "--force")
            raise _KilledError

    with gateway.load() as load:
        with pytest.raises(_KilledError):
            step.run(candidates["resumed"], kill, **SETTINGS)
        assert _backends(gateway) == 2
        result = step.run(candidates["resumed"], **SETTINGS)
    last = result.output[-1]
    report(f"killed step: {last['action']} at {last['percent']} %; {summary(load)}")
    assert last["action"] == "promote", result.log
    assert load["failed"] == 0, load["failures"]
    assert list(load["digests"]) == [
        digest_of(candidates["good"]),
        digest_of(candidates["resumed"]),
    ]
