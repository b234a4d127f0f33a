"""Protects the deploy step on a cluster: only what answers is deployed, else all is as it was."""

from __future__ import annotations

import pytest

from grocer.errors import DeployError
from grocer.release.bundle import Bundle
from serving.rollout.deploy import champion
from tests.fixtures.kubernetes_api import NAMES, OLD, STOP, Api, container

NO_IMAGE = {"status": {"containerStatuses": [container(waiting="ImagePullBackOff")]}}


def test_a_bundle_is_rolled_out_and_asked(api: Api, stub_bundle: Bundle) -> None:
    (answer,) = api.deploy(stub_bundle)
    assert answer == {"product_name": NAMES[0], "department": "produce", "probability": 0.9}
    assert api.model["storageUri"] == f"s3://b/{stub_bundle.digest}"
    assert api.model["env"] == [{"name": "GROCER_BUNDLE_DIGEST", "value": stub_bundle.digest}]


def test_only_the_fields_of_its_own_are_applied(api: Api, stub_bundle: Bundle) -> None:
    api.deploy(stub_bundle)
    (fields,) = api.applied
    assert set(fields) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(fields["metadata"]) == {"name", "namespace"}
    assert set(fields["spec"]) == {"predictor"}
    assert set(fields["spec"]["predictor"]) == {"model"}


def test_what_serves_already_is_asked_again(api: Api, stub_bundle: Bundle) -> None:
    api.deploy(stub_bundle)
    assert api.deploy(stub_bundle)
    first, second = api.applied
    assert first == second


def test_what_serves_already_is_no_canary_of_itself(api: Api, stub_bundle: Bundle) -> None:
    api.deploy(stub_bundle)
    assert api.deploy(stub_bundle, canary=20)
    assert api.canary is None


def test_a_bundle_told_before_that_fails_leaves_nothing_to_go_back_to(
    api: Api, stub_bundle: Bundle
) -> None:
    """As after a run that was killed while it waited."""
    api.deploy(stub_bundle)
    api.fates[stub_bundle.digest] = NO_IMAGE
    with pytest.raises(DeployError, match=r"can't be pulled .*; .*nothing to go back to"):
        api.deploy(stub_bundle)


def test_a_predictor_with_another_digest_is_not_deployed(api: Api, stub_bundle: Bundle) -> None:
    api.answers_with = "f" * 64
    with pytest.raises(DeployError, match=r"serves ffff.*, not .*; 000000000000 serves again"):
        api.deploy(stub_bundle)
    assert api.model["storageUri"] == f"s3://b/{OLD}"


def test_a_first_bundle_that_fails_is_stopped_and_is_no_champion(
    new_api: Api, stub_bundle: Bundle
) -> None:
    new_api.fates[stub_bundle.digest] = NO_IMAGE
    with pytest.raises(DeployError, match="nothing served before, so its pods were stopped"):
        new_api.deploy(stub_bundle)
    assert new_api.service is not None
    assert new_api.service["metadata"]["annotations"] == {STOP: "true"}
    assert champion(new_api.config(), new_api.cluster) == ""
    new_api.fates.clear()
    new_api.deploy(stub_bundle)
    assert new_api.service["metadata"]["annotations"] == {}
    assert champion(new_api.config(), new_api.cluster) == f"s3://b/{stub_bundle.digest}"


def test_what_somebody_stopped_stays_so(api: Api, stub_bundle: Bundle) -> None:
    api.stop("kubectl-annotate")
    with pytest.raises(DeployError, match=r"stopped by kubectl-annotate; start it first: kubectl"):
        api.deploy(stub_bundle)
    assert api.applied == []
    assert champion(api.config(), api.cluster) == f"s3://b/{OLD}"


def test_a_rollback_that_fails_is_said(api: Api, stub_bundle: Bundle) -> None:
    api.fates |= {stub_bundle.digest: NO_IMAGE, OLD: {"status": {}}}
    with pytest.raises(
        DeployError, match=r"pulled .*; and what served before \(0+\) did not come back: .*1 s"
    ):
        api.deploy(stub_bundle)


def test_a_later_deploy_is_left_alone(api: Api, stub_bundle: Bundle) -> None:
    """Another run has changed the bundle while this one waited for its own."""
    api.fates[stub_bundle.digest] = {"status": {}}
    api.overtaken_by = "e" * 64
    with pytest.raises(
        DeployError,
        match=r"another deploy has taken its place; .*another deploy's and is left alone",
    ):
        api.deploy(stub_bundle)
    assert api.model["storageUri"] == f"s3://b/{'e' * 64}"
    assert len(api.applied) == 2


def test_before_the_first_deploy_there_is_no_champion(new_api: Api) -> None:
    assert champion(new_api.config(), new_api.cluster) == ""
