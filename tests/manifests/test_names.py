"""Tests that manifests and code agree on names, paths, ports and durations."""

import re

import pytest

from grocer.config.deployment import (
    HUB_TOKEN_SECRET,
    TRUST_CONFIG,
    ClusterConfig,
    DeployConfig,
    ServingConfig,
)
from grocer.config.recipes import llama2_7b_t4
from grocer.config.stages import HUB_TOKEN
from grocer.release.trust import VARIABLE
from pipelines.kubeflow.resources import BASE
from serving.predictor.__main__ import arguments
from serving.predictor.model import NAME
from serving.predictor.protocol.openapi import routes
from serving.rollout.inference_service import DIGEST_ENV, MODEL_FORMAT
from serving.rollout.readiness import CONTAINER, LABEL
from tests.manifests.kustomize import TARGETS, Object, build, get, of_kind
from tests.manifests.pods import main_container, predictor

DEPLOY, CLUSTER = DeployConfig(), ClusterConfig()
SERVING = build("base/serving")
T4 = build("overlays/gke-t4")
every_serving = pytest.mark.parametrize(
    "objects",
    [pytest.param(build(name), id=name) for name in TARGETS if name.startswith(("base/s", "over"))],
)


def test_objects_have_the_names_that_deploy_uses() -> None:
    assert get(SERVING, "Namespace", DEPLOY.namespace)
    for kind, name in (("InferenceService", DEPLOY.name), ("ServingRuntime", DEPLOY.name)):
        assert get(SERVING, kind, name)["metadata"]["namespace"] == DEPLOY.namespace


def test_no_bundle_or_runtime_is_set_before_deploy() -> None:
    model = get(SERVING, "InferenceService")["spec"]["predictor"]["model"]
    assert model == {"modelFormat": {"name": MODEL_FORMAT}}
    (model_format,) = get(SERVING, "ServingRuntime")["spec"]["supportedModelFormats"]
    assert model_format["name"] == MODEL_FORMAT
    assert model_format["autoSelect"] is False


@every_serving
def test_command_line_is_valid(objects: list[Object]) -> None:
    container = main_container(predictor(objects))
    assert container["name"] == CONTAINER
    assert container["command"] == ["python", "-m", "serving.predictor"]
    options = arguments(container["args"])
    assert options.digest == f"$({DIGEST_ENV})"
    assert str(options.bundle) == "/mnt/models"
    assert options.host == "0.0.0.0"
    assert [port["containerPort"] for port in container["ports"]] == [options.port]


@every_serving
def test_probes_use_existing_routes(objects: list[Object]) -> None:
    container, known = main_container(predictor(objects)), routes(NAME, ui=False)
    for probe, route in (
        ("startupProbe", "ready"),
        ("readinessProbe", "ready"),
        ("livenessProbe", "live"),
    ):
        assert known[container[probe]["httpGet"]["path"]] == ("GET", route)
    assert container["readinessProbe"]["httpGet"]["path"] == f"/v2/models/{NAME}/ready"


@every_serving
def test_startup_probe_fits_within_the_rollout_timeout(objects: list[Object]) -> None:
    probe = main_container(predictor(objects))["startupProbe"]
    seconds = probe["periodSeconds"] * probe["failureThreshold"]
    assert 300 <= seconds <= DEPLOY.timeout_seconds


@every_serving
def test_grace_period_covers_draining(objects: list[Object]) -> None:
    limits = ServingConfig()
    seconds = predictor(objects)["terminationGracePeriodSeconds"]
    assert seconds >= limits.drain_seconds + limits.grace_seconds + 5


@every_serving
def test_caches_are_below_tmp(objects: list[Object]) -> None:
    env = {entry["name"]: entry["value"] for entry in main_container(predictor(objects))["env"]}
    for name in ("HOME", "TMPDIR", "HF_HOME", "XDG_CACHE_HOME", "GROCER_CACHE"):
        assert env[name].startswith("/tmp"), name
    assert env["HF_HUB_OFFLINE"] == "1"


@every_serving
def test_rollout_surges_except_with_a_single_gpu(objects: list[Object]) -> None:
    """A surge pod could never be scheduled if the old one holds the only GPU."""
    service = get(objects, "InferenceService")["spec"]["predictor"]
    strategy = service["deploymentStrategy"]["rollingUpdate"]
    limits = main_container(predictor(objects))["resources"]["limits"]
    expected = (0, 1) if "nvidia.com/gpu" in limits else (1, 0)
    assert (strategy["maxSurge"], strategy["maxUnavailable"]) == expected


@every_serving
def test_policies_select_the_predictor_pods(objects: list[Object]) -> None:
    selectors = [get(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    for policy in of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        if policy["metadata"]["namespace"] == DEPLOY.namespace and spec["podSelector"]:
            selectors.append(spec["podSelector"]["matchLabels"])
            ports = {port["port"] for rule in spec.get("ingress", ()) for port in rule["ports"]}
            assert ports <= {8080}
    assert len(selectors) > 3
    assert all(selector == {LABEL: DEPLOY.name} for selector in selectors)


@every_serving
def test_service_account_exists_without_token(objects: list[Object]) -> None:
    account = get(objects, "ServiceAccount", predictor(objects)["serviceAccountName"])
    assert account["metadata"]["namespace"] == DEPLOY.namespace
    assert account["automountServiceAccountToken"] is False


def storage() -> Object:
    name = predictor(SERVING)["storageContainerName"]
    return get(SERVING, "ClusterStorageContainer", name)["spec"]


@pytest.mark.parametrize(
    "store",
    [
        "s3://bundles",
        "s3://bundles/of/grocer",
        "gs://b",
        "oci://r.test:5000/a/b",
        "oci+native://r/a",
    ],
)
def test_storage_container_accepts_bundle_uris_only(store: str) -> None:
    assert DeployConfig(store=store)
    (accepted,) = storage()["supportedUriFormats"]
    separator = ":" if store.startswith("oci") else "/"
    assert re.match(accepted["regex"], f"{store}{separator}{'0123456789abcdef' * 4}")
    assert not re.match(accepted["regex"], f"{store}{separator}somebodys-model")


def test_store_config_and_secret_names_match() -> None:
    sources = {
        entry["name"]: next(iter(entry["valueFrom"].values()))
        for entry in storage()["container"]["env"]
    }
    assert all(source["optional"] for source in sources.values())
    config = secret = CLUSTER.store_secret
    assert {name: (source["name"], source["key"]) for name, source in sources.items()} == {
        "AWS_ENDPOINT_URL": (config, "AWS_ENDPOINT_URL"),
        "AWS_DEFAULT_REGION": (config, "AWS_REGION"),
        "AWS_ACCESS_KEY_ID": (secret, "AWS_ACCESS_KEY_ID"),
        "AWS_SECRET_ACCESS_KEY": (secret, "AWS_SECRET_ACCESS_KEY"),
    }
    maps = of_kind(build("base/serving", "s3"), "ConfigMap")
    maps = [manifest for manifest in maps if manifest["metadata"]["name"] == config]
    assert {m["metadata"]["namespace"] for m in maps} == {"kubeflow", DEPLOY.namespace}
    for config_map in maps:
        assert config_map["data"].keys() == {"AWS_ENDPOINT_URL", "AWS_REGION"}


@pytest.mark.parametrize("overlay", ["kind", "gke-t4", "eks-t4"])
def test_predictor_of_an_overlay_requires_the_trust_of_the_platform(overlay: str) -> None:
    pod = get(build(f"overlays/{overlay}"), "ServingRuntime")["spec"]
    container = main_container(pod)
    folder = {each["name"]: each["value"] for each in container["env"]}[VARIABLE]
    assert read_only_volume(pod, folder)["configMap"] == {"name": TRUST_CONFIG}


def read_only_volume(pod: Object, path: str) -> Object:
    """Return the volume that the main container mounts, read-only, at a path."""
    (mount,) = (m for m in main_container(pod)["volumeMounts"] if m["mountPath"] == path)
    assert mount["readOnly"] is True
    (volume,) = (v for v in pod["volumes"] if v["name"] == mount["name"])
    return volume


def test_t4_scheduling_matches_the_pipeline() -> None:
    pod = predictor(T4)
    assert pod["nodeSelector"] == CLUSTER.node_selector
    assert [toleration["key"] for toleration in pod["tolerations"]] == [CLUSTER.accelerator]
    assert main_container(pod)["resources"]["limits"][CLUSTER.accelerator] == "1"


def test_base_model_claim_is_mounted_read_only() -> None:
    pod = predictor(T4)
    assert str(arguments(main_container(pod)["args"]).base) == BASE
    claim = read_only_volume(pod, BASE)["persistentVolumeClaim"]
    assert claim["readOnly"] is True
    assert get(build("weights"), "PersistentVolumeClaim", claim["claimName"])


def test_weights_job_downloads_the_base_of_the_recipe() -> None:
    job = get(build("weights"), "Job", "grocer-base-weights")["spec"]["template"]["spec"]
    (container,) = job["containers"]
    model, _, revision = llama2_7b_t4().base.source.partition("@")
    assert container["args"][0] == model
    assert f"--revision={revision}" in container["args"]
    assert f"--local-dir={BASE}" in container["args"]
    (token,) = (entry for entry in container["env"] if entry["name"] == HUB_TOKEN)
    assert token["valueFrom"]["secretKeyRef"]["name"] == HUB_TOKEN_SECRET


def test_cpu_predictor_uses_the_base_in_the_bundle() -> None:
    assert arguments(main_container(predictor(build("overlays/kind")))["args"]).base is None
