"""Tests of the TrainingRuntime, and of the TrainJobs that the train step creates for it."""

from importlib.util import find_spec
from typing import Any

import pytest

from components.images import Images
from components.trainjob import CONTAINER, GROUP, RUNTIME
from grocer.config.recipes import recipe
from grocer.errors import GrocerError, StoppedError
from pipelines.kubeflow.trainjob import train_job
from tests.manifests.kustomize import Object, build, get, of_kind
from tests.manifests.schemas import schema_errors

OBJECTS = build("trainer")
SETTINGS = ("train.nodes=2", "train.processes_per_node=4", "train.checkpoints=s3://bucket/kept")


def job_spec() -> Object:
    (job,) = get(OBJECTS, "TrainingRuntime")["spec"]["template"]["spec"]["replicatedJobs"]
    assert job["name"] == CONTAINER
    return job["template"]["spec"]


def pod_spec() -> Object:
    return job_spec()["template"]["spec"]


def created(*settings: str, name: str = "llama2-7b-t4") -> Object:
    """Return the TrainJob of a recipe."""
    job = train_job(recipe(name).with_settings([*SETTINGS, *settings]), Images().train)
    return job | {"metadata": job["metadata"] | {"name": "grocer-1"}}


@pytest.mark.parametrize("settings", [(), ("base.source=pvc://weights/llama", "cluster.queue=q")])
@pytest.mark.parametrize("name", ["tiny", "llama2-7b-t4", "llama2-70b-fsdp"])
def test_created_job_matches_its_schema(name: str, settings: tuple[str, ...]) -> None:
    assert schema_errors(created(*settings, name=name)) == []


@pytest.mark.parametrize("field", ["numProcs", "runtimeReference"])
def test_schema_violation_is_detected(field: str) -> None:
    job = created()
    job["spec"]["trainer"][field] = 2
    assert schema_errors(job) == ["TrainJob: unknown field"]


def test_job_refers_to_the_runtime() -> None:
    runtime = get(OBJECTS, "TrainingRuntime", RUNTIME)
    reference = created()["spec"]["runtimeRef"]
    assert reference == {"apiGroup": GROUP, "kind": runtime["kind"], "name": RUNTIME}


def test_job_has_one_gpu_and_the_resources_of_a_step_for_each_process() -> None:
    trainer = created("cluster.model_cpu=1500m")["spec"]["trainer"]
    resources = {"cpu": "6000m", "memory": "96Gi", "nvidia.com/gpu": "4"}
    assert trainer["resourcesPerNode"] == {"requests": resources, "limits": resources}
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert "nvidia.com/gpu" not in str(created(name="tiny"))


def patched_pod(*settings: str) -> dict[str, Any]:
    (patch,) = created(*settings)["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return job["template"]["spec"]["template"]["spec"]


def test_job_selects_the_gpu_nodes_and_mounts_the_base() -> None:
    pod = patched_pod("base.source=pvc://weights/llama")
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "weights"}
    assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == "/mnt/base"
    assert not pod["volumes"][0].keys() & {volume["name"] for volume in pod_spec()["volumes"]}
    assert "runtimePatches" not in created(name="tiny")["spec"]


def test_secrets_are_optional_references() -> None:
    variables = created("cluster.store_secret=mine")["spec"]["trainer"]["env"]
    values = {each["name"]: each["value"] for each in variables if "value" in each}
    assert values == {"GROCER_IMAGE": Images().train}
    sources = [source for each in variables for source in each.get("valueFrom", {}).values()]
    assert all(source["optional"] for source in sources)
    assert {source["name"] for source in sources} == {"mine", "grocer-hub-token"}


def test_command_is_an_existing_module() -> None:
    (container,) = pod_spec()["containers"]
    assert container["name"] == CONTAINER
    python, flag, module = container["command"]
    assert (python, flag) == ("python", "-m")
    assert find_spec(module)


def test_only_a_user_error_is_not_tried_again() -> None:
    (rule,) = job_spec()["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [GrocerError.exit_code]
    assert rule["onExitCodes"]["containerName"] == CONTAINER
    assert StoppedError.exit_code != GrocerError.exit_code
    assert pod_spec()["restartPolicy"] == "Never"  # as a podFailurePolicy requires


def test_only_pods_that_train_reach_each_other() -> None:
    (policy,) = of_kind(OBJECTS, "NetworkPolicy")
    labels = job_spec()["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": labels}}]
