"""Canaries that are promoted or rolled back by their metrics, over HTTP."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any
from unittest.mock import Mock

import pytest

from grocer.artifacts.canary_decision import CanaryDecision, to_markdown
from grocer.errors import DeployError
from grocer.release.bundle import LoadedBundle
from serving.rollout import analysis, progressive
from serving.rollout.canary import promote, rollback
from serving.rollout.decision_events import decisions
from serving.rollout.kubernetes import Cluster, UnreachableError
from serving.rollout.progressive import Products, analyse
from serving.rollout.update import SupersededError
from tests.fixtures.kubernetes_api import CRASHED, NOT_READY, OLD, PRODUCTS, Api, compared_with
from tests.fixtures.metrics_server import MetricsServer, Traffic
from tests.serving.rollout.test_interruptions import digests, interleaved, killed_and_repeated

STEPS = {"canary": [5, 50], "analysis": True, "analysis_requests": 100, "analysis_seconds": 20.0}
ONE_STEP = STEPS | {"canary": [20]}
BAD = Traffic(error=0.3)


@pytest.fixture(autouse=True)
def rare_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests run hundreds of rollouts."""
    monkeypatch.setattr(analysis, "ERROR_PROBABILITY", 1e-4)


@pytest.fixture
def stable(other_bundle: LoadedBundle) -> Iterator[MetricsServer]:
    with MetricsServer(other_bundle, seed=2) as server:
        yield server


@pytest.fixture
def canary(stub_bundle: LoadedBundle) -> Iterator[MetricsServer]:
    with MetricsServer(stub_bundle) as server:
        yield server


@pytest.fixture
def make(at_once: None, stable: MetricsServer, canary: MetricsServer) -> Callable[[], Api]:
    """Return a cluster with the predictors' metrics."""

    def api(states: dict[str, Any] | None = None) -> Api:
        made = Api(states or {}, first=OLD)
        made.metrics_ports = {OLD: stable.server_port, canary.bundle.digest: canary.server_port}
        return made

    return api


@pytest.fixture
def api(make: Callable[[], Api], stub_bundle: LoadedBundle) -> Iterator[Api]:
    """A cluster with a canary that has 5 % of the traffic."""
    with make() as made:
        made.deploy(stub_bundle, **STEPS)
        yield made


def run(api: Api, cluster: Cluster | None = None, **settings: Any) -> list[CanaryDecision]:
    return analyse(api.config(**STEPS | settings), cluster or api.cluster)


def test_canary_without_a_worse_signal_is_promoted(api: Api, stub_bundle: LoadedBundle) -> None:
    found = run(api)
    actions = [each.action for each in found]
    assert actions == ["hold", "hold", "continue", "hold", "hold", "promote"]
    assert [each.percent for each in found] == [5, 5, 5, 50, 50, 50]
    assert api.traffic_percents == [5, 50, 100, None]
    assert digests(api) == (stub_bundle.digest, None, None)
    assert min(each.canary_requests for each in found) >= 25
    assert found[-1].canary_requests >= 100


@pytest.mark.parametrize(
    ("traffic", "rule"),
    [
        (BAD, "error_rate"),
        (Traffic(error=1.0), "error_rate"),
        (Traffic(seconds=0.2), "latency"),
        (Traffic(shares=(0.3, 0.7)), "departments"),
        (Traffic(confidence=0.45), "low_confidence"),
        (Traffic(confidence=0.6), "estimated_accuracy"),
    ],
)
def test_worse_canary_is_rolled_back(
    api: Api, canary: MetricsServer, traffic: Traffic, rule: str
) -> None:
    canary.traffic = traffic
    last = run(api)[-1]
    assert last.action == "roll_back"
    assert rule in {signal.rule for signal in last.signals if not signal.passed}
    assert api.traffic_percents[-2:] == [0, None]
    assert digests(api) == (OLD, None, None)


def test_better_canary_is_promoted(
    api: Api, stable: MetricsServer, canary: MetricsServer, stub_bundle: LoadedBundle
) -> None:
    stable.traffic = BAD
    canary.traffic = Traffic(seconds=0.005, confidence=0.95)
    assert run(api)[-1].action == "promote"
    assert digests(api) == (stub_bundle.digest, None, None)


def test_later_step_rolls_back_too(api: Api, canary: MetricsServer) -> None:
    def break_canary(call: int) -> None:
        if api.canary and api.canary.traffic_percent == 50:
            canary.traffic = BAD

    found = run(api, api.observed(break_canary))
    assert found[-1].percent == 50
    assert found[-1].action == "roll_back"
    assert api.traffic_percents == [5, 50, 0, None]


@pytest.mark.parametrize("idle", ["stable", "canary"])
def test_too_few_requests_are_no_promotion(
    api: Api, stable: MetricsServer, canary: MetricsServer, idle: str
) -> None:
    {"stable": stable, "canary": canary}[idle].traffic = Traffic(requests=1)
    (last,) = run(api, analysis_seconds=0.1)
    assert last.action == "roll_back"
    assert "too few requests" in last.reason
    assert digests(api) == (OLD, None, None)


def test_unreadable_metrics_are_no_promotion(api: Api, canary: MetricsServer) -> None:
    canary.reachable = False
    (last,) = run(api, analysis_seconds=0.1)
    assert last.action == "roll_back"
    assert "503" in last.reason


def test_failed_requests_are_no_evidence_for_a_promotion(
    api: Api, stable: MetricsServer, canary: MetricsServer
) -> None:
    """Both predictors only fail, so that no signal is worse."""
    stable.traffic = canary.traffic = Traffic(error=1.0)
    last = run(api, analysis_seconds=0.3)[-1]
    assert "too few requests" in last.reason
    assert digests(api) == (OLD, None, None)


def test_decisions_are_events_and_a_page(api: Api, canary: MetricsServer) -> None:
    canary.traffic = BAD
    found = run(api)
    assert [each.decision for each in decisions(api.cluster, "grocer")] == found
    event = api.events[-1]
    assert event["involvedObject"]["kind"] == "InferenceService"
    assert (event["type"], event["reason"]) == ("Warning", "CanaryRolledBack")
    page = to_markdown(found)
    assert "| error_rate | **worse** |" in page
    assert found[-1].text in page
    assert "No canary" in to_markdown([])


def test_rollout_does_not_need_events(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "create_event", Mock(side_effect=DeployError("forbidden")))
    assert run(api)[-1].promoted
    assert "could not be written as an event: forbidden" in capsys.readouterr().out


def test_steps_are_kept_for_a_resumed_analysis(api: Api) -> None:
    found = run(api, canary=[], analysis=False)
    assert {each.percent for each in found} == {5, 50}
    assert found[-1].promoted


@pytest.mark.parametrize(("percent", "promoted"), [(50, True), (100, True), (0, False)])
def test_repeated_deploy_resumes(
    api: Api, stub_bundle: LoadedBundle, percent: int, promoted: bool
) -> None:
    api.service["spec"]["canary"][0]["trafficPercent"] = percent
    api.applied.clear()
    api.deploy(stub_bundle, **STEPS)
    assert api.traffic_percents == [percent]
    found = run(api)
    assert found[-1].promoted == promoted
    assert len(found) == (3 if percent == 50 else 1)
    assert digests(api) == (stub_bundle.digest if promoted else OLD, None, None)


def test_canary_without_steps_is_analysed_at_its_share(
    make: Callable[[], Api], stub_bundle: LoadedBundle
) -> None:
    with make() as api:
        api.deploy(stub_bundle, canary=20)
        found = run(api, canary=[], analysis=False)
        assert {each.percent for each in found} == {20}
        assert found[-1].promoted


def test_canary_with_more_traffic_than_all_steps_is_analysed_there(api: Api) -> None:
    api.service["spec"]["canary"][0]["trafficPercent"] = 70
    assert {each.percent for each in run(api)} == {70}


def test_failed_rollback_is_reported(api: Api, canary: MetricsServer) -> None:
    canary.traffic = BAD
    api.pod_states[OLD] = NOT_READY
    with pytest.raises(DeployError, match=r"grocer-predictor: rollout timed out after 1 s"):
        run(api)
    assert [event["reason"] for event in api.events] == ["CanaryRolledBack"]


def test_nothing_to_analyse_after_a_first_deploy(at_once: None, stub_bundle: LoadedBundle) -> None:
    with Api({}) as api:
        api.deploy(stub_bundle, **STEPS)
        assert analyse(api.config(**STEPS), api.cluster, digest=stub_bundle.digest) == []
        with pytest.raises(DeployError, match="no canary"):
            run(api)


@pytest.mark.parametrize("bad", [False, True])
def test_short_outage_of_the_api_is_tolerated(
    make: Callable[[], Api], canary: MetricsServer, stub_bundle: LoadedBundle, bad: bool
) -> None:
    """A request fails after each request of the analysis in turn."""
    canary.traffic = BAD if bad else Traffic()
    for at in range(1, 1000):
        with make() as api:
            api.deploy(stub_bundle, **ONE_STEP)
            calls = []

            def fail(call: int, api: Api = api, at: int = at, calls: list[int] = calls) -> None:
                calls.append(call)
                api.unavailable = int(call == at)

            found = run(api, api.observed(fail), **ONE_STEP | {"timeout_seconds": 20.0})
            assert found[-1].promoted != bad
            assert digests(api) == (OLD if bad else stub_bundle.digest, None, None)
            if len(calls) < at:
                break
    assert at > 15


def test_long_outage_of_the_api_leaves_the_canary(api: Api, stub_bundle: LoadedBundle) -> None:
    api.unavailable = 10**6
    with pytest.raises(UnreachableError):
        run(api, timeout_seconds=0.1)
    api.unavailable = 0
    assert digests(api) == (OLD, stub_bundle.digest, 5)
    assert run(api)[-1].promoted


def test_canary_that_cannot_take_its_share_is_rolled_back(
    api: Api, stub_bundle: LoadedBundle
) -> None:
    def crash(call: int) -> None:
        if api.canary and api.canary.traffic_percent == 50:
            api.pod_states[stub_bundle.digest] = CRASHED

    with pytest.raises(DeployError, match=r"crash loop.*; grocer/grocer: removed canary"):
        run(api, api.observed(crash))
    assert digests(api) == (OLD, None, None)
    assert api.events[-1]["reason"] == "CanaryRolledBack"


@pytest.mark.parametrize("bad", [False, True])
def test_killed_analysis_is_completed(
    make: Callable[[], Api], canary: MetricsServer, stub_bundle: LoadedBundle, bad: bool
) -> None:
    def deploy_and_analyse(api: Api, cluster: Cluster) -> object:
        api.deploy(stub_bundle, cluster, **ONE_STEP)
        return analyse(api.config(**ONE_STEP), cluster, digest=stub_bundle.digest)

    canary.traffic = BAD if bad else Traffic()
    expected = OLD if bad else stub_bundle.digest
    for api in killed_and_repeated(make, deploy_and_analyse):
        assert digests(api) == (expected, None, None)


@pytest.mark.parametrize("command", [promote, rollback])
def test_promote_and_rollback_work_at_any_time(
    make: Callable[[], Api], stub_bundle: LoadedBundle, command: Callable[..., str]
) -> None:
    """The command runs after each request of the analysis, which never fights it."""
    with make() as api:
        api.deploy(stub_bundle, **ONE_STEP)

    def make_with_canary() -> Api:
        made = make()
        made.service = deepcopy(api.service)
        return made

    def analysed(api: Api, cluster: Cluster) -> None:
        try:
            assert run(api, cluster, **ONE_STEP)[-1].promoted
        except SupersededError:
            raise
        except DeployError as error:
            raise AssertionError("failed, but not superseded") from error

    expected = stub_bundle.digest if command is promote else OLD
    for each, promoted, _ in interleaved(
        make_with_canary, analysed, lambda api, cluster: command(api.config(), cluster)
    ):
        assert digests(each) == (stub_bundle.digest if promoted else expected, None, None)


def test_other_canary_is_left_alone(
    api: Api, stub_bundle: LoadedBundle, other_bundle: LoadedBundle
) -> None:
    def replaced(call: int) -> None:
        if call == 8:
            api.deploy(other_bundle, canary=20)

    with pytest.raises(SupersededError):
        run(api, api.observed(replaced))
    assert digests(api) == (OLD, other_bundle.digest, 20)
    with pytest.raises(SupersededError):
        analyse(api.config(**STEPS), api.cluster, digest=stub_bundle.digest)


@pytest.mark.parametrize("department", ["bread", "milk"])
def test_agreement_with_the_stable_predictor(
    make: Callable[[], Api],
    stub_bundle: LoadedBundle,
    monkeypatch: pytest.MonkeyPatch,
    department: str,
) -> None:
    with make() as api:
        api.deploy(stub_bundle, **STEPS)
        monkeypatch.setattr(Cluster, "address", lambda self, name: name)
        config = api.config(**STEPS, address=None)

        def predict(url: str, names: list[str], digest: str, timeout: float) -> list[Any]:
            assert (digest == OLD) == (url == "grocer-predictor")
            return [{"department": "bread" if digest == OLD else department} for _ in names]

        monkeypatch.setattr(progressive, "predict", predict)
        found = analyse(config, api.cluster, Products(PRODUCTS * 50, 0.7))
        assert found[-1].signals[-1].rule == "agreement"
        assert found[-1].promoted == (department == "bread")


def test_expected_agreement_is_that_of_the_evaluation(stub_bundle: LoadedBundle) -> None:
    assert Products.of(compared_with(stub_bundle, None), PRODUCTS) is None
    bundle = compared_with(stub_bundle, OLD)
    products, champion = Products.of(bundle, PRODUCTS), bundle.manifest.evaluation.champion
    only_old = champion.paired.only_baseline_right / champion.products
    both_right = champion.paired.baseline_accuracy - only_old
    assert products.expected_agreement == pytest.approx(both_right)
