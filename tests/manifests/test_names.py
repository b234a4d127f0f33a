"""Protects what manifests and code have to agree on: names, paths, ports, seconds."""

from __future__ import annotations

import re

import pytest

from grocer.config.deployment import HUB_TOKEN_SECRET, ClusterConfig, DeployConfig, ServingConfig
from grocer.config.recipes import llama2_7b_t4
from grocer.config.stages import HUB_TOKEN
from pipelines.kubeflow.resources import BASE
from serving.predictor.__main__ import arguments
from serving.predictor.middleware import routes
from serving.predictor.model import NAME
from serving.rollout.inference_service import DIGEST, FORMAT
from serving.rollout.readiness import CONTAINER, LABEL
from tests.manifests.kustomize import TARGETS, Object, build, one, with_component
from tests.manifests.pods import main_container, predictor

DEPLOY, CLUSTER = DeployConfig(), ClusterConfig()
SERVING = build("base/serving")
T4 = build("overlays/gke-t4")
every_serving = pytest.mark.parametrize(
    "objects",
    [pytest.param(build(name), id=name) for name in TARGETS if name.startswith(("base/s", "over"))],
)


def environment(container: Object) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_deploy_finds_its_objects() -> None:
    assert one(SERVING, "Namespace", DEPLOY.namespace)
    for kind, name in (("InferenceService", DEPLOY.name), ("ServingRuntime", DEPLOY.runtime)):
        assert one(SERVING, kind, name)["metadata"]["namespace"] == DEPLOY.namespace


def test_nothing_is_served_until_deploy_says_what() -> None:
    model = one(SERVING, "InferenceService")["spec"]["predictor"]["model"]
    assert model == {"modelFormat": {"name": FORMAT}}
    (only,) = one(SERVING, "ServingRuntime")["spec"]["supportedModelFormats"]
    assert only["name"] == FORMAT
    assert only["autoSelect"] is False


@every_serving
def test_the_command_is_one_that_there_is(objects: list[Object]) -> None:
    container = main_container(predictor(objects))
    assert container["name"] == CONTAINER
    assert container["command"] == ["python", "-m", "serving.predictor"]
    given = arguments(container["args"])
    assert given.digest == f"$({DIGEST})"
    assert str(given.bundle) == "/mnt/models"
    assert given.host == "0.0.0.0"
    assert [port["containerPort"] for port in container["ports"]] == [given.port]


@every_serving
def test_probes_ask_routes_that_there_are(objects: list[Object]) -> None:
    container, known = main_container(predictor(objects)), routes(NAME, ui=False)
    for probe, route in (
        ("startupProbe", "ready"),
        ("readinessProbe", "ready"),
        ("livenessProbe", "live"),
    ):
        assert known[container[probe]["httpGet"]["path"]] == ("GET", route)
    # KServe's own /v2/health/ready would do too; this one is asked for by everybody else.
    assert container["readinessProbe"]["httpGet"]["path"] == f"/v2/models/{NAME}/ready"


@every_serving
def test_there_is_time_to_load_within_a_rollout(objects: list[Object]) -> None:
    probe = main_container(predictor(objects))["startupProbe"]
    seconds = probe["periodSeconds"] * probe["failureThreshold"]
    assert 300 <= seconds <= DEPLOY.timeout_seconds


@every_serving
def test_nothing_in_flight_is_cut_off(objects: list[Object]) -> None:
    limits = ServingConfig()
    seconds = predictor(objects)["terminationGracePeriodSeconds"]
    assert seconds >= limits.drain_seconds + limits.grace_seconds + 5


@every_serving
def test_caches_lie_where_it_may_write(objects: list[Object]) -> None:
    found = environment(main_container(predictor(objects)))
    for name in ("HOME", "TMPDIR", "HF_HOME", "XDG_CACHE_HOME", "GROCER_CACHE"):
        assert found[name].partition("/tmp")[0] == "", name
    assert found["HF_HUB_OFFLINE"] == "1"


def strategy(objects: list[Object]) -> tuple[int, int]:
    (rolling,) = (
        thing["spec"]["predictor"]["deploymentStrategy"]["rollingUpdate"]
        for thing in objects
        if thing["kind"] == "InferenceService"
    )
    return rolling["maxSurge"], rolling["maxUnavailable"]


@every_serving
def test_a_pod_is_replaced_by_one_that_is_ready_but_where_a_gpu_is_lacking(
    objects: list[Object],
) -> None:
    """A second pod would wait forever for a single GPU, and the rollout with it."""
    limits = main_container(predictor(objects))["resources"]["limits"]
    assert strategy(objects) == ((0, 1) if "nvidia.com/gpu" in limits else (1, 0))


@every_serving
def test_policies_mean_the_predictors_pods(objects: list[Object]) -> None:
    selectors = [one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    for policy in (thing for thing in objects if thing["kind"] == "NetworkPolicy"):
        spec = policy["spec"]
        if policy["metadata"]["namespace"] == DEPLOY.namespace and spec["podSelector"]:
            selectors.append(spec["podSelector"]["matchLabels"])
            ports = {port["port"] for rule in spec.get("ingress", ()) for port in rule["ports"]}
            assert ports <= {8080}
    assert len(selectors) > 3
    assert all(selector == {LABEL: DEPLOY.name} for selector in selectors)


@every_serving
def test_accounts_are_there(objects: list[Object]) -> None:
    account = one(objects, "ServiceAccount", predictor(objects)["serviceAccountName"])
    assert account["metadata"]["namespace"] == DEPLOY.namespace
    assert account["automountServiceAccountToken"] is False


def storage() -> Object:
    name = predictor(SERVING)["storageContainerName"]
    return one(SERVING, "ClusterStorageContainer", name)["spec"]


@pytest.mark.parametrize("store", ["s3://bundles", "s3://bundles/of/grocer", "gs://b"])
def test_bundles_are_fetched_by_our_container(store: str) -> None:
    assert DeployConfig(store=store)
    (accepted,) = storage()["supportedUriFormats"]
    assert re.match(accepted["regex"], f"{store}/{'0123456789abcdef' * 4}")
    assert not re.match(accepted["regex"], f"{store}/somebodys-model")


def test_the_stores_address_and_keys_have_one_name() -> None:
    named = {
        entry["name"]: next(iter(entry["valueFrom"].values()))
        for entry in storage()["container"]["env"]
    }
    assert all(source["optional"] for source in named.values())
    config, secret = CLUSTER.store_config, CLUSTER.store_secret
    assert {name: (source["name"], source["key"]) for name, source in named.items()} == {
        "AWS_ENDPOINT_URL": (config, "AWS_ENDPOINT_URL"),
        "AWS_DEFAULT_REGION": (config, "AWS_REGION"),
        "AWS_ACCESS_KEY_ID": (secret, "AWS_ACCESS_KEY_ID"),
        "AWS_SECRET_ACCESS_KEY": (secret, "AWS_SECRET_ACCESS_KEY"),
    }
    maps = [
        thing
        for thing in with_component("base/serving", "s3")
        if thing["kind"] == "ConfigMap" and thing["metadata"]["name"] == config
    ]
    assert {thing["metadata"]["namespace"] for thing in maps} == {"kubeflow", DEPLOY.namespace}
    for thing in maps:
        assert thing["data"].keys() == {"AWS_ENDPOINT_URL", "AWS_REGION"}


def test_a_t4_is_what_the_pipeline_means_by_one() -> None:
    pod = predictor(T4)
    assert pod["nodeSelector"] == CLUSTER.node_selector
    assert [toleration["key"] for toleration in pod["tolerations"]] == [CLUSTER.accelerator]
    assert main_container(pod)["resources"]["limits"][CLUSTER.accelerator] == "1"


def test_a_base_too_large_for_a_bundle_is_mounted() -> None:
    pod, weights = predictor(T4), build("weights")
    container = main_container(pod)
    assert str(arguments(container["args"]).base) == BASE
    (mount,) = (m for m in container["volumeMounts"] if m["mountPath"] == BASE)
    (volume,) = (v for v in pod["volumes"] if v["name"] == mount["name"])
    assert mount["readOnly"] is True
    claim = volume["persistentVolumeClaim"]
    assert claim["readOnly"] is True
    assert one(weights, "PersistentVolumeClaim", claim["claimName"])


def test_the_weights_are_those_of_the_recipe() -> None:
    job = one(build("weights"), "Job", "grocer-base-weights")["spec"]["template"]["spec"]
    (container,) = job["containers"]
    assert container["args"][0] == llama2_7b_t4().base.source
    assert f"--local-dir={BASE}" in container["args"]
    (token,) = (entry for entry in container["env"] if entry["name"] == HUB_TOKEN)
    assert token["valueFrom"]["secretKeyRef"]["name"] == HUB_TOKEN_SECRET


def test_without_a_gpu_a_bundle_carries_its_base() -> None:
    assert arguments(main_container(predictor(build("overlays/kind")))["args"]).base is None
