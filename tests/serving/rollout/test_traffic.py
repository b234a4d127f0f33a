"""The traffic of a canary is read from the HTTPRoute."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from grocer.errors import DeployError
from grocer.release.bundle import LoadedBundle
from serving.rollout import deploy as deploying
from serving.rollout import traffic
from serving.rollout.canary import promote, rollback
from serving.rollout.kubernetes import Cluster
from tests.fixtures.kubernetes_api import HTTP_ROUTES, OLD, Api


def rule(**weights: int | None) -> dict[str, Any]:
    return {
        "backendRefs": [
            {"name": name, **({} if weight is None else {"weight": weight})}
            for name, weight in weights.items()
        ]
    }


@pytest.mark.parametrize(
    ("rules", "percent"),
    [
        ([rule(stable=80, canary=20)], 20),
        ([rule(stable=3, canary=1)], 25),
        ([rule(stable=80, canary=20), rule(stable=90, canary=10)], 10),
        ([rule(stable=80, canary=20), rule(stable=1)], 0),
        ([rule(stable=None, canary=None)], 50),
        ([rule(stable=0, canary=0)], 0),
        ([{}], 0),
        ([], 0),
    ],
)
def test_share_is_the_lowest_of_all_rules(rules: list[dict[str, Any]], percent: float) -> None:
    assert traffic.traffic_percent({"spec": {"rules": rules}}, "canary") == percent


def test_canary_is_undone_if_the_controller_splits_no_traffic(
    api: Api, stub_bundle: LoadedBundle
) -> None:
    api.splits_traffic = False
    with pytest.raises(DeployError, match=r"grocer/grocer has 0 %; .*KServe 0\.21.*rolled back"):
        api.deploy(stub_bundle, canary=20)
    assert api.canary is None
    assert api.model["storageUri"] == f"s3://b/{OLD}"


def test_canary_without_a_route_is_undone(api: Api, stub_bundle: LoadedBundle) -> None:
    api.responses[f"{HTTP_ROUTES}grocer"] = (404, "404 page not found")
    with pytest.raises(DeployError, match=r"does not exist; .*components/canary.*rolled back"):
        api.deploy(stub_bundle, canary=20)


@pytest.mark.parametrize("condition", ["Accepted", "ResolvedRefs"])
@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_route_must_be_accepted(
    api: Api, stub_bundle: LoadedBundle, condition: str, status: str
) -> None:
    api.route_conditions[condition] = status
    with pytest.raises(DeployError, match=rf"{condition}={status}: Refused"):
        api.deploy(stub_bundle, canary=20)


def test_route_without_a_gateway_is_not_accepted(api: Api, stub_bundle: LoadedBundle) -> None:
    api.route_conditions.clear()
    with pytest.raises(DeployError, match="not accepted by a gateway yet"):
        api.deploy(stub_bundle, canary=20)


@pytest.mark.parametrize("end", [rollback, promote])
def test_proxies_follow_the_route_before_a_predictor_is_removed(
    end: Callable[..., str], api: Api, stub_bundle: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.deploy(stub_bundle, canary=20)
    waits: list[tuple[float, int]] = []

    def sleep(seconds: float) -> None:
        waits.append((seconds, api.canary.traffic_percent))

    monkeypatch.setattr(traffic, "time", SimpleNamespace(sleep=sleep))
    end(api.config(), api.cluster)
    assert waits == [(traffic.PROXY_SECONDS, 100 if end is promote else 0)]


def test_failed_canary_has_pods_but_no_traffic_when_it_is_removed(
    api: Api, stub_bundle: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a minimum, KServe would remove its pods together with its traffic."""
    canaries: list[tuple[int, int | None]] = []
    apply = Cluster.apply

    def record(self: Cluster, body: Mapping[str, Any]) -> None:
        canaries.extend(
            (each["trafficPercent"], each["predictor"].get("minReplicas"))
            for each in body["spec"].get("canary", [])
        )
        apply(self, body)

    monkeypatch.setattr(Cluster, "apply", record)
    monkeypatch.setattr(deploying, "predict", Mock(side_effect=DeployError("wrong bundle")))
    with pytest.raises(DeployError, match=r"wrong bundle; rolled back"):
        api.deploy(stub_bundle, canary=20)
    assert canaries == [(20, None), (0, 1)]


def test_promotion_needs_the_route_and_rollback_does_not(
    api: Api, stub_bundle: LoadedBundle
) -> None:
    api.deploy(stub_bundle, canary=20)
    api.route_conditions["Accepted"] = "False"
    with pytest.raises(DeployError, match=r"Accepted=False.*restored .* 20 %"):
        promote(api.config(), api.cluster)
    rollback(api.config(), api.cluster)
    assert api.canary is None
