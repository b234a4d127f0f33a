"""Deploy on a cluster: only a bundle that passes its smoke test stays deployed."""

from dataclasses import replace
from typing import Any

import pytest

from grocer.config.deployment import RegistryConfig
from grocer.errors import DeployError
from grocer.release.bundle import LoadedBundle
from grocer.release.lineage import Version
from serving.rollout.deploy import champion, deploy
from serving.rollout.inference_service import (
    MODEL_LABEL,
    VERSION_LABEL,
    State,
    apply_configuration,
)
from serving.rollout.smoke_test import request_pods
from tests.fixtures.kubernetes_api import (
    NO_IMAGE,
    NOT_READY,
    OLD,
    PRODUCTS,
    STOP,
    Api,
    compared_with,
    revision,
)
from tests.fixtures.model_registry import ModelRegistry


def test_deploy_returns_predictions_of_new_bundle(api: Api, stub_bundle: LoadedBundle) -> None:
    (prediction,) = api.deploy(stub_bundle)
    expected = {"product_name": PRODUCTS[0], "department": "produce", "probability": 0.9}
    assert prediction == expected
    assert api.model["storageUri"] == f"s3://b/{stub_bundle.digest}"
    assert api.model["env"] == [{"name": "GROCER_BUNDLE_DIGEST", "value": stub_bundle.digest}]


def test_deploy_applies_only_its_own_fields(api: Api, stub_bundle: LoadedBundle) -> None:
    api.deploy(stub_bundle)
    (body,) = api.applied
    assert set(body) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(body["metadata"]) == {"name", "namespace"}
    assert set(body["spec"]) == {"predictor"}
    assert set(body["spec"]["predictor"]) == {"annotations", "model"}
    assert set(body["spec"]["predictor"]["annotations"]) == {"grocer-deploy/rollout"}


def test_deploying_the_same_bundle_again_changes_nothing(
    api: Api, stub_bundle: LoadedBundle
) -> None:
    api.deploy(stub_bundle)
    assert api.deploy(stub_bundle)
    first, second = api.applied
    assert first == second


def test_registered_bundle_is_linked_to_its_version(api: Api, stub_bundle: LoadedBundle) -> None:
    with ModelRegistry() as server:
        api.deploy(stub_bundle, registry=RegistryConfig(address=server.url))
        (version,) = server.versions
        (artifact,) = server.tables["artifacts"]
    labels = {MODEL_LABEL: "1", VERSION_LABEL: version["id"]}
    (body,) = api.applied
    assert body["metadata"]["labels"] == body["spec"]["predictor"]["labels"] == labels
    assert version["externalId"] == stub_bundle.digest
    assert artifact["uri"] == f"s3://b/{stub_bundle.digest}"
    # Without the registry, its pods must not restart.
    api.deploy(stub_bundle)
    assert api.applied[1] == api.applied[0]


def test_bundle_is_deployed_without_labels_if_the_registry_fails(
    api: Api, stub_bundle: LoadedBundle, capsys: pytest.CaptureFixture[str]
) -> None:
    with ModelRegistry() as server:
        server.fault = "500"
        api.deploy(stub_bundle, registry=RegistryConfig(address=server.url))
    assert f"--register s3://b/{stub_bundle.digest}" in capsys.readouterr().out
    assert api.model["storageUri"] == f"s3://b/{stub_bundle.digest}"
    assert "labels" not in api.applied[0]["metadata"]


def test_rollback_restores_the_labels_of_the_previous_version(
    api: Api, stub_bundle: LoadedBundle
) -> None:
    old = replace(revision(OLD), version=Version("1", "7"))
    api.apply(apply_configuration(api.config(), State(old)))
    api.applied.clear()
    api.pod_states[stub_bundle.digest] = NO_IMAGE
    with ModelRegistry() as server, pytest.raises(DeployError, match="rolled back"):
        api.deploy(stub_bundle, registry=RegistryConfig(address=server.url))
    assert [body["metadata"]["labels"][VERSION_LABEL] for body in api.applied] == ["1", "7"]


def test_stable_bundle_does_not_become_its_own_canary(api: Api, stub_bundle: LoadedBundle) -> None:
    api.deploy(stub_bundle)
    assert api.deploy(stub_bundle, canary=20)
    assert api.canary is None


def test_no_rollback_without_a_record_of_the_previous_state(
    api: Api, stub_bundle: LoadedBundle
) -> None:
    api.apply(apply_configuration(api.config(), State(revision(stub_bundle.digest))))
    api.pod_states[stub_bundle.digest] = NO_IMAGE
    with pytest.raises(DeployError, match=r"image cannot be pulled .*; no rollback"):
        api.deploy(stub_bundle)


def test_invalid_record_is_reported(api: Api, stub_bundle: LoadedBundle) -> None:
    api.deploy(stub_bundle)
    api.service["spec"]["predictor"]["annotations"]["grocer-deploy/rollout"] = "{"
    with pytest.raises(DeployError, match=r"grocer-deploy/rollout .*kubectl edit"):
        api.deploy(stub_bundle)


@pytest.mark.parametrize(
    ("settings", "reason"), [({"address": None}, "deploy.address"), ({"canary": 20}, "minReplicas")]
)
def test_deploy_refuses_a_predictor_that_scales_to_zero_without_a_way_to_start_pods(
    api: Api, stub_bundle: LoadedBundle, settings: dict[str, Any], reason: str
) -> None:
    api.service["spec"]["predictor"]["minReplicas"] = 0
    with pytest.raises(DeployError, match=reason):
        api.deploy(stub_bundle, **settings)
    assert api.applied == []


def test_deploy_starts_pods_of_a_predictor_that_is_scaled_to_zero(
    api: Api, stub_bundle: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in autoscaler starts a pod for a request."""
    api.service["spec"]["predictor"]["minReplicas"] = 0
    api.replicas = 0

    def scale_up(url: str) -> None:
        request_pods(url)
        api.replicas = 1

    monkeypatch.setattr("serving.rollout.deploy.request_pods", scale_up)
    assert api.deploy(stub_bundle, timeout_seconds=10.0)
    assert api.replicas == 1


@pytest.mark.parametrize("compared", [None, "e" * 64])
@pytest.mark.parametrize("canary", [0, 20])
def test_deploy_refuses_a_bundle_compared_with_another_champion(
    api: Api, stub_bundle: LoadedBundle, compared: str | None, canary: int
) -> None:
    bundle = compared_with(stub_bundle, compared)
    with pytest.raises(DeployError, match=r"serves bundle 0+, but .*start the run again"):
        deploy(bundle, api.config(canary=canary), PRODUCTS, api.cluster)
    assert api.applied == []


def test_deploy_fails_when_predictor_serves_another_digest(
    api: Api, stub_bundle: LoadedBundle
) -> None:
    api.predictor_digest = "f" * 64
    with pytest.raises(DeployError, match=r"serves bundle ffff.*; rolled back to 000000000000"):
        api.deploy(stub_bundle)
    assert api.model["storageUri"] == f"s3://b/{OLD}"


def test_failed_first_deploy_is_stopped_and_not_champion(
    new_api: Api, stub_bundle: LoadedBundle
) -> None:
    assert champion(new_api.config(), new_api.cluster) == ""
    new_api.pod_states[stub_bundle.digest] = NO_IMAGE
    with pytest.raises(DeployError, match="stopped its pods"):
        new_api.deploy(stub_bundle)
    assert new_api.service["metadata"]["annotations"] == {STOP: "true"}
    assert champion(new_api.config(), new_api.cluster) == ""
    new_api.pod_states.clear()
    new_api.deploy(stub_bundle)
    assert new_api.service["metadata"]["annotations"] == {}
    assert champion(new_api.config(), new_api.cluster) == f"s3://b/{stub_bundle.digest}"


def test_deploy_refuses_a_service_that_another_manager_stopped(
    api: Api, stub_bundle: LoadedBundle
) -> None:
    api.stop("kubectl-annotate")
    with pytest.raises(DeployError, match=r"stopped by kubectl-annotate; .*kubectl annotate"):
        api.deploy(stub_bundle)
    assert api.applied == []
    assert champion(api.config(), api.cluster) == f"s3://b/{OLD}"


def test_failed_rollback_is_reported(api: Api, stub_bundle: LoadedBundle) -> None:
    api.pod_states |= {stub_bundle.digest: NO_IMAGE, OLD: NOT_READY}
    with pytest.raises(DeployError, match=r"pulled .*; rollback to 0+ failed: .*1 s"):
        api.deploy(stub_bundle)


def test_revision_of_a_later_deploy_is_not_rolled_back(api: Api, stub_bundle: LoadedBundle) -> None:
    """Another run deploys its bundle while this one waits."""
    api.pod_states[stub_bundle.digest] = NOT_READY
    api.replaced_by = "e" * 64
    with pytest.raises(
        DeployError, match=r"another deploy has replaced .*; rollback to 0+ failed: .*changed"
    ):
        api.deploy(stub_bundle)
    assert api.model["storageUri"] == f"s3://b/{'e' * 64}"
    assert len(api.applied) == 2
