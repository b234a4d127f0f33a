"""Canary deployment, promotion and rollback: the traffic split at each step."""

import pytest

from grocer.config.deployment import RegistryConfig
from grocer.errors import DeployError
from grocer.release.bundle import LoadedBundle
from serving.rollout.canary import promote, rollback
from serving.rollout.deploy import champion
from tests.fixtures.kubernetes_api import OLD, Api
from tests.fixtures.model_registry import ModelRegistry


@pytest.fixture
def with_canary(api: Api, stub_bundle: LoadedBundle) -> Api:
    """A cluster that serves a stable revision and a canary."""
    api.deploy(stub_bundle, canary=20)
    return api


def test_canary_runs_beside_stable_revision(with_canary: Api, stub_bundle: LoadedBundle) -> None:
    canary = with_canary.canary
    assert canary.traffic_percent == 20
    assert canary.revision.uri == f"s3://b/{stub_bundle.digest}"
    assert canary.revision.deployment("grocer") == f"grocer-c{stub_bundle.digest[:8]}-predictor"
    assert with_canary.model["storageUri"] == f"s3://b/{OLD}"
    assert champion(with_canary.config(), with_canary.cluster) == f"s3://b/{OLD}"


def test_labels_are_those_of_the_stable_revision(api: Api, stub_bundle: LoadedBundle) -> None:
    with ModelRegistry() as server:
        api.deploy(stub_bundle, registry=RegistryConfig(address=server.url), canary=20)
    promote(api.config(), api.cluster)
    first, *_, last = api.applied
    assert "labels" not in first["metadata"]
    labels = first["spec"]["canary"][0]["predictor"]["labels"]
    assert last["metadata"]["labels"] == last["spec"]["predictor"]["labels"] == labels


def test_first_deploy_is_not_a_canary(new_api: Api, stub_bundle: LoadedBundle) -> None:
    new_api.deploy(stub_bundle, canary=20)
    assert new_api.canary is None
    assert new_api.model["storageUri"] == f"s3://b/{stub_bundle.digest}"


def test_promotion_shifts_all_traffic_before_stable_revision_is_removed(
    with_canary: Api, stub_bundle: LoadedBundle
) -> None:
    assert stub_bundle.digest in promote(with_canary.config(), with_canary.cluster)
    assert with_canary.traffic_percents == [20, 100, None]
    assert with_canary.applied[1]["spec"]["canary"][0]["predictor"]["minReplicas"] == 1
    assert with_canary.service["spec"]["predictor"]["name"] == f"c{stub_bundle.digest[:8]}"
    assert champion(with_canary.config(), with_canary.cluster) == f"s3://b/{stub_bundle.digest}"
    with pytest.raises(DeployError, match=r"no canary; .*--canary"):
        promote(with_canary.config(), with_canary.cluster)


def test_promotion_needs_as_many_pods_as_stable_revision(with_canary: Api) -> None:
    with_canary.service["spec"]["predictor"]["minReplicas"] = 3
    with pytest.raises(DeployError, match=r"timed out after 1 s.*; restored .* 20 %"):
        promote(with_canary.config(), with_canary.cluster)
    assert with_canary.traffic_percents == [20, 100, 20]
    assert with_canary.model["storageUri"] == f"s3://b/{OLD}"


@pytest.mark.parametrize("controller_runs", [True, False])
def test_rollback_drains_canary_before_it_is_removed(
    with_canary: Api, stub_bundle: LoadedBundle, controller_runs: bool
) -> None:
    with_canary.controller_runs = controller_runs
    message = rollback(with_canary.config(), with_canary.cluster)
    assert stub_bundle.digest[:12] in message
    assert OLD in message
    assert with_canary.traffic_percents == [20, 0, None]
    assert with_canary.canary is None
    assert with_canary.model["storageUri"] == f"s3://b/{OLD}"
    with pytest.raises(DeployError, match="no canary"):
        rollback(with_canary.config(), with_canary.cluster)


def test_deploy_after_promotion_keeps_predictor_name(
    with_canary: Api, other_bundle: LoadedBundle, stub_bundle: LoadedBundle
) -> None:
    """With another name KServe would create another Service."""
    promote(with_canary.config(), with_canary.cluster)
    with_canary.deploy(other_bundle)
    assert with_canary.service["spec"]["predictor"]["name"] == f"c{stub_bundle.digest[:8]}"
    assert champion(with_canary.config(), with_canary.cluster) == f"s3://b/{other_bundle.digest}"
