"""Rollouts that are killed and repeated, or that run at the same time as another one.

A process is killed, or another one runs, after each of its requests to the Kubernetes API.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from grocer.errors import DeployError
from grocer.release.bundle import LoadedBundle
from serving.rollout.canary import promote, rollback
from serving.rollout.deploy import deploy
from serving.rollout.inference_service import State
from serving.rollout.kubernetes import Cluster
from serving.rollout.update import update
from tests.fixtures.kubernetes_api import (
    NO_IMAGE,
    OLD,
    PRODUCTS,
    Api,
    compared_with,
    revision,
)

Run = Callable[[Api, Cluster], object]


pytestmark = pytest.mark.usefixtures("at_once")


class Killed(BaseException):
    """SIGKILL: nothing catches it."""


def digests(api: Api) -> tuple[str, str | None, int | None]:
    """Return the digests of the stable revision and the canary, and the canary's traffic."""
    canary = api.state.canary
    return (
        api.state.champion.digest,
        canary and canary.revision.digest,
        canary and canary.traffic_percent,
    )


def killed_and_repeated(make: Callable[[], Api], run: Run) -> Iterator[Api]:
    """Kill `run` after each of its requests, repeat it, and yield the API server each time."""
    for last in itertools.count(1):

        def kill(call: int, last: int = last) -> None:
            if call == last:
                raise Killed

        with make() as api:
            try:
                with suppress(DeployError):
                    run(api, api.observed(kill))
            except Killed:
                with suppress(DeployError):
                    run(api, api.cluster)
                yield api
            else:
                assert last > 4
                return


def deploying(bundle: LoadedBundle, **settings: object) -> Run:
    bundle = compared_with(bundle, OLD)
    return lambda api, cluster: deploy(bundle, api.config(**settings), PRODUCTS, cluster)


def ending(end: Callable[..., str]) -> Run:
    """Return `promote` or `rollback` of the canary."""
    return lambda api, cluster: end(api.config(), cluster)


@pytest.mark.parametrize("canary", [0, 20])
def test_killed_deploy_is_completed(stub_bundle: LoadedBundle, canary: int) -> None:
    expected = (OLD, stub_bundle.digest, 20) if canary else (stub_bundle.digest, None, None)
    run = deploying(stub_bundle, canary=canary)
    for api in killed_and_repeated(lambda: Api({}, first=OLD), run):
        assert digests(api) == expected


@pytest.mark.parametrize("canary", [0, 20])
def test_killed_deploy_of_a_broken_bundle_is_undone(stub_bundle: LoadedBundle, canary: int) -> None:
    run = deploying(stub_bundle, canary=canary)
    for api in killed_and_repeated(lambda: Api({stub_bundle.digest: NO_IMAGE}, first=OLD), run):
        assert digests(api) == (OLD, None, None)


def test_killed_first_deploy_of_a_broken_bundle_is_stopped(stub_bundle: LoadedBundle) -> None:
    run = deploying(stub_bundle)
    for api in killed_and_repeated(lambda: Api({stub_bundle.digest: NO_IMAGE}), run):
        assert api.state.champion is None


def test_killed_deploy_of_a_broken_canary_restores_the_previous_canary(
    stub_bundle: LoadedBundle, other_bundle: LoadedBundle
) -> None:
    def make() -> Api:
        return with_canary(other_bundle, {stub_bundle.digest: NO_IMAGE})

    for api in killed_and_repeated(make, deploying(stub_bundle, canary=50)):
        assert digests(api) == (OLD, other_bundle.digest, 20)


def with_canary(bundle: LoadedBundle, pod_states: dict[str, object] | None = None) -> Api:
    """Return the API server of a cluster with a canary."""
    with Api({}, first=OLD) as api:
        api.deploy(bundle, canary=20)
        service = api.service
    api = Api(pod_states or {}, first=OLD)
    api.service = service
    api.reconcile()
    return api


@pytest.mark.parametrize("end", [promote, rollback])
def test_killed_end_of_a_canary_is_completed(
    stub_bundle: LoadedBundle, end: Callable[..., str]
) -> None:
    expected = stub_bundle.digest if end is promote else OLD
    for api in killed_and_repeated(lambda: with_canary(stub_bundle), ending(end)):
        assert digests(api) == (expected, None, None)


def test_killed_promotion_of_a_broken_canary_restores_its_traffic(
    stub_bundle: LoadedBundle,
) -> None:
    def make() -> Api:
        return with_canary(stub_bundle, {stub_bundle.digest: NO_IMAGE})

    for api in killed_and_repeated(make, ending(promote)):
        assert digests(api) == (OLD, stub_bundle.digest, 20)
        assert api.canary.min_replicas is None


def interleaved(make: Callable[[], Api], run: Run, other: Run) -> Iterator[tuple[Api, bool, bool]]:
    """Run `other` after each request of `run`; yield the server, and whether each succeeded."""
    for at in itertools.count(1):
        with make() as api:
            outcomes: list[bool] = []

            def start_other(
                call: int, api: Api = api, at: int = at, outcomes: list[bool] = outcomes
            ) -> None:
                if call == at:
                    outcomes.append(succeeds(other, api, api.cluster))

            succeeded = succeeds(run, api, api.observed(start_other))
            if not outcomes:
                assert at > 4
                return
            yield api, succeeded, outcomes[0]


def succeeds(run: Run, api: Api, cluster: Cluster) -> bool:
    try:
        run(api, cluster)
    except DeployError:
        return False
    return True


def test_of_two_deploys_that_met_the_same_champion_one_succeeds(
    stub_bundle: LoadedBundle, other_bundle: LoadedBundle
) -> None:
    runs = deploying(stub_bundle), deploying(other_bundle)
    winners = set()
    for api, first, second in interleaved(lambda: Api({}, first=OLD), *runs):
        assert first != second
        winner = stub_bundle if first else other_bundle
        assert digests(api) == (winner.digest, None, None)
        winners.add(winner.digest)
    assert winners == {stub_bundle.digest, other_bundle.digest}


def test_undo_overwrites_no_other_deploy(
    stub_bundle: LoadedBundle, other_bundle: LoadedBundle
) -> None:
    runs = deploying(stub_bundle), deploying(other_bundle)
    for api, first, second in interleaved(
        lambda: Api({stub_bundle.digest: NO_IMAGE}, first=OLD), *runs
    ):
        assert not first
        assert digests(api) == (other_bundle.digest if second else OLD, None, None)


def test_promotion_overwrites_no_deploy(
    stub_bundle: LoadedBundle, other_bundle: LoadedBundle
) -> None:
    for api, promoted, deployed in interleaved(
        lambda: with_canary(stub_bundle), ending(promote), deploying(other_bundle)
    ):
        assert promoted != deployed
        winner = stub_bundle if promoted else other_bundle
        assert digests(api) == (winner.digest, None, None)


def test_update_whose_response_was_lost_is_not_an_error(stub_bundle: LoadedBundle) -> None:
    with Api({}, first=OLD) as api:
        before, after = api.state, State(revision(stub_bundle.digest))
        for _ in range(2):
            update(api.cluster, api.config(), before, after)
        assert len(api.applied) == 1
