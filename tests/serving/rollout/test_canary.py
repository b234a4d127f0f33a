"""Protects a canary's life: beside what serves, then alone or gone, with no request lost."""

from __future__ import annotations

import pytest

from grocer.errors import DeployError
from grocer.release.bundle import Bundle
from serving.rollout.canary import promote, rollback
from serving.rollout.deploy import champion
from tests.fixtures.kubernetes_api import OLD, Api, container

NO_MEMORY = {"status": {"containerStatuses": [container(ended=137, reason="OOMKilled")]}}


@pytest.fixture
def both(api: Api, stub_bundle: Bundle) -> Api:
    """A cluster with a canary beside the former bundle."""
    api.deploy(stub_bundle, canary=20)
    return api


def shares(api: Api) -> list[int | None]:
    """The canary's share in each change that was applied."""
    given = [fields["spec"].get("canary") for fields in api.applied]
    return [entry[0]["trafficPercent"] if entry else None for entry in given]


def test_it_stands_beside_what_serves(both: Api, stub_bundle: Bundle) -> None:
    assert both.canary is not None
    assert both.canary.percent == 20
    assert both.canary.served.uri == f"s3://b/{stub_bundle.digest}"
    assert both.canary.served.deployment("grocer") == f"grocer-c{stub_bundle.digest[:8]}-predictor"
    assert both.model["storageUri"] == f"s3://b/{OLD}"
    assert champion(both.config(), both.cluster) == f"s3://b/{OLD}"


def test_the_first_bundle_of_all_serves_alone(new_api: Api, stub_bundle: Bundle) -> None:
    new_api.deploy(stub_bundle, canary=20)
    assert new_api.canary is None
    assert new_api.model["storageUri"] == f"s3://b/{stub_bundle.digest}"


def test_promoted_it_bears_all_requests_before_the_former_goes(
    both: Api, stub_bundle: Bundle
) -> None:
    assert stub_bundle.digest in promote(both.config(), both.cluster)
    assert shares(both) == [20, 100, None]
    assert both.applied[1]["spec"]["canary"][0]["predictor"]["minReplicas"] == 1
    assert both.service is not None
    assert both.service["spec"]["predictor"]["name"] == f"c{stub_bundle.digest[:8]}"
    assert champion(both.config(), both.cluster) == f"s3://b/{stub_bundle.digest}"
    with pytest.raises(DeployError, match="has no canary; deploy one with --canary"):
        promote(both.config(), both.cluster)


def test_a_canary_with_too_few_pods_is_not_promoted(both: Api) -> None:
    assert both.service is not None
    both.service["spec"]["predictor"]["minReplicas"] = 3
    with pytest.raises(DeployError, match=r"not rolled out after 1 s.*; it has 20 % of the req"):
        promote(both.config(), both.cluster)
    assert shares(both) == [20, 100, 20]
    assert both.model["storageUri"] == f"s3://b/{OLD}"


def test_a_controller_that_moves_no_requests_promotes_nothing(both: Api) -> None:
    both.controller_runs = False
    with pytest.raises(DeployError, match=r"moves no requests to .*; it has 20 %"):
        promote(both.config(), both.cluster)
    assert both.model["storageUri"] == f"s3://b/{OLD}"


def test_rolled_back_it_gets_no_requests_before_it_goes(both: Api) -> None:
    assert "is gone" in rollback(both.config(), both.cluster)
    assert shares(both) == [20, 0, None]
    assert both.canary is None
    assert both.model["storageUri"] == f"s3://b/{OLD}"
    with pytest.raises(DeployError, match="has no canary"):
        rollback(both.config(), both.cluster)


def test_it_is_rolled_back_even_if_no_requests_are_moved(both: Api) -> None:
    both.controller_runs = False
    assert "is gone" in rollback(both.config(), both.cluster)
    assert both.canary is None


def test_one_that_fails_leaves_what_serves_alone(api: Api, stub_bundle: Bundle) -> None:
    api.fates[stub_bundle.digest] = NO_MEMORY
    with pytest.raises(DeployError, match=r"OOMKilled.*000000000000 serves again"):
        api.deploy(stub_bundle, canary=20)
    assert api.canary is None
    assert api.model["storageUri"] == f"s3://b/{OLD}"


def test_one_that_fails_brings_back_the_one_before_it(
    both: Api, other_bundle: Bundle, stub_bundle: Bundle
) -> None:
    both.fates[other_bundle.digest] = NO_MEMORY
    with pytest.raises(DeployError, match="OOMKilled"):
        both.deploy(other_bundle, canary=50)
    assert both.canary is not None
    assert both.canary.percent == 20
    assert both.canary.served.digest == stub_bundle.digest


def test_after_a_promotion_the_next_bundle_takes_its_place(
    both: Api, other_bundle: Bundle, stub_bundle: Bundle
) -> None:
    """Under the name that the canary gave, or KServe would make another Service."""
    promote(both.config(), both.cluster)
    both.deploy(other_bundle)
    assert both.service is not None
    assert both.service["spec"]["predictor"]["name"] == f"c{stub_bundle.digest[:8]}"
    assert champion(both.config(), both.cluster) == f"s3://b/{other_bundle.digest}"
