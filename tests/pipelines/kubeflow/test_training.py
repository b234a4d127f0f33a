"""The compiled training pipeline, compared with a golden file.

After an intended change, `.venv/bin/python -m tests.pipelines.kubeflow.test_training` regenerates
the golden file; review its diff before committing.
"""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from components.images import IMAGES, Images
from grocer.config.deployment import (
    DEPLOY_SECRET,
    DEPLOY_TOKEN,
    SIGNING_KEY,
    SIGNING_SECRET,
    TRUST_CONFIG,
)
from grocer.config.recipes import RECIPES, recipe
from grocer.config.run import RunConfig
from grocer.release.trust import DIRECTORY
from pipelines.kubeflow.training import package

GOLDEN = Path(__file__).parent / "golden" / "llama2-7b-t4.yaml"
MODEL_STEPS = {"train", "evaluate"}
STEPS = {"ingest", "validate", "build-dataset", "find-champion", "gate", "deploy"} | MODEL_STEPS
STORE = ["deploy.store=s3://bucket/grocer"]
PASSED = "inputs.parameter_values['pipelinechannel--gate-Output'] == true"


def normalised(text: str) -> str:
    """The pipeline without the kfp version and the default configuration."""
    pipeline, platform = yaml.safe_load_all(text)
    pipeline["sdkVersion"] = "kfp-X"
    pipeline["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"] = "{...}"
    return yaml.safe_dump_all([pipeline, platform], width=100)


@cache
def compile_with(*settings, name="llama2-7b-t4", images=IMAGES, on_cluster=True):
    """The pipeline, and the Kubernetes settings by step, of a recipe with other settings."""
    run = recipe(name).with_settings(settings)
    return documents(package(run, images, on_cluster=on_cluster))


def documents(package):
    """The pipeline, and the Kubernetes settings by step, of a package."""
    pipeline, platform = yaml.safe_load_all(package.text)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return pipeline, {step.removeprefix("exec-"): each for step, each in executors.items()}


@pytest.fixture(scope="module")
def text():
    return package(recipe("llama2-7b-t4").with_settings(STORE)).text


@pytest.fixture(scope="module")
def pipeline():
    return compile_with(*STORE)[0]


@pytest.fixture(scope="module")
def platform():
    return compile_with(*STORE)[1]


def containers(pipeline):
    executors = pipeline["deploymentSpec"]["executors"].items()
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors}


def tasks(pipeline):
    """All tasks by name, also those inside conditions."""
    result = dict(pipeline["root"]["dag"]["tasks"])
    for component in pipeline["components"].values():
        result |= component.get("dag", {}).get("tasks", {})
    return result


def test_pipeline_matches_golden_file(text):
    assert normalised(text) == GOLDEN.read_text()


def test_compile_is_reproducible_across_hash_seeds(text, tmp_path):
    out = tmp_path / "grocer.yaml"
    command = [sys.executable, "-m", "pipelines.cli.main", "compile", str(out), "--set", *STORE]
    subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True)
    assert out.read_text() == text


def test_only_deploy_depends_on_the_gate(pipeline):
    root = pipeline["root"]["dag"]["tasks"]
    assert branches(pipeline) == {PASSED: {"deploy"}}
    assert set(root) == STEPS - {"deploy"} | {"condition-1"}
    assert "validate" in root["build-dataset"]["dependentTasks"]


def test_only_train_and_evaluate_use_gpu_nodes(pipeline, platform):
    selecting = {step for step, spec in platform.items() if "nodeSelector" in spec}
    tolerating = {step for step, spec in platform.items() if "tolerations" in spec}
    with_gpu = {
        step
        for step, container in containers(pipeline).items()
        if container["resources"].get("accelerator", {}).get("resourceType") == "nvidia.com/gpu"
    }
    assert selecting == tolerating == with_gpu == MODEL_STEPS


def test_every_step_has_limits_equal_to_requests_and_retries(pipeline):
    for container in containers(pipeline).values():
        resources = container["resources"]
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"]
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"]
    retried = {step for step, task in tasks(pipeline).items() if "retryPolicy" in task}
    assert retried == MODEL_STEPS
    policy = tasks(pipeline)["train"]["retryPolicy"]
    assert policy["maxRetryCount"] == 2
    assert policy["backoffFactor"] == 2.0


def test_steps_and_runs_have_timeouts(text, platform):
    _, spec = yaml.safe_load_all(text)
    deadline = spec["platforms"]["kubernetes"]["pipelineConfig"]["activeDeadlineSeconds"]
    assert deadline == 3 * 24 * 3600
    seconds = {step: int(spec["activeDeadlineSeconds"]) for step, spec in platform.items()}
    assert {seconds.pop(step) for step in MODEL_STEPS} == {24 * 3600}
    # Its own timeout, plus those of a rollout and a rollback.
    assert seconds.pop("deploy") == 7200 + 2 * 900
    assert set(seconds.values()) == {7200}


def test_deploy_has_time_for_all_steps_of_a_canary():
    _, platform = compile_with(*STORE, "deploy.canary=5,25", "deploy.analysis=true")
    steps = 2 * (900 + 3600) + 900  # each step, and the promotion
    assert int(platform["deploy"]["activeDeadlineSeconds"]) == 7200 + 2 * 900 + steps


def test_steps_run_as_non_root_with_a_writable_tmp(platform):
    assert set(platform) == STEPS
    for spec in platform.values():
        assert spec["securityContext"] == {
            "runAsUser": "1000",
            "runAsGroup": "1000",
            "runAsNonRoot": True,
        }
        assert spec["emptyDirMounts"] == [
            {"volumeName": "tmp", "mountPath": "/tmp", "sizeLimit": "64Gi"}
        ]


def test_only_deploy_has_the_token_and_the_signing_key(platform):
    mounted = {step for step, spec in platform.items() if "secretAsVolume" in spec}
    assert mounted == {"deploy"}
    secrets = platform["deploy"]["secretAsVolume"]
    assert {(each["secretName"], each["mountPath"]) for each in secrets} == {
        (DEPLOY_SECRET, DEPLOY_TOKEN),
        (SIGNING_SECRET, SIGNING_KEY),
    }


def test_steps_that_read_a_bundle_mount_the_trust_of_the_platform(platform):
    mounted = {
        step: spec["configMapAsVolume"]
        for step, spec in platform.items()
        if "configMapAsVolume" in spec
    }
    assert set(mounted) == {"evaluate", "deploy"}
    for (config_map,) in mounted.values():
        assert config_map["configMapName"] == TRUST_CONFIG
        assert config_map["mountPath"] == str(DIRECTORY)
        assert config_map["optional"] is True


def test_steps_with_external_inputs_are_not_cached(pipeline):
    cached = {step for step, task in tasks(pipeline).items() if task.get("cachingOptions")}
    assert cached & STEPS == {"validate", "build-dataset", "train", "evaluate"}


def test_nothing_is_installed_at_run_time(pipeline):
    for container in containers(pipeline).values():
        assert "pip install" not in " ".join(container["command"])


def secrets(spec):
    return {secret["secretName"]: secret for secret in spec.get("secretAsEnv", [])}


def test_hub_token_is_an_optional_secret(platform):
    for step in MODEL_STEPS:
        secret = secrets(platform[step])["grocer-hub-token"]
        assert secret["keyToEnv"] == [{"secretKey": "token", "envVar": "HF_TOKEN"}]
        assert secret["optional"] is True


def test_steps_that_use_the_object_store_have_its_credentials(platform):
    steps = {step for step, spec in platform.items() if "grocer-s3" in secrets(spec)}
    assert steps == {"ingest", "train", "find-champion", "evaluate", "deploy"}
    for step in steps:
        secret, (endpoint,) = secrets(platform[step])["grocer-s3"], platform[step]["configMapAsEnv"]
        assert secret["optional"] is endpoint["optional"] is True
        names = [each["envVar"] for each in secret["keyToEnv"] + endpoint["keyToEnv"]]
        assert names == [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "ORAS_USER",
            "ORAS_PASS",
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
        ]
        assert endpoint["configMapName"] == "grocer-s3"


def test_champion_is_the_deployed_bundle_by_default(pipeline):
    inputs = parameters(pipeline, "find-champion")
    assert inputs["bundle"] == {"componentInputParameter": "champion"}
    inputs = parameters(pipeline, "evaluate")
    assert inputs["champion"]["taskOutputParameter"]["producerTask"] == "find-champion"


def parameters(pipeline, task):
    """The input parameters of a task."""
    return pipeline["root"]["dag"]["tasks"][task]["inputs"]["parameters"]


def test_deploy_without_a_store_uses_the_resources_of_train():
    pipeline, platform = compile_with()
    assert set(platform) == STEPS - {"find-champion"}
    assert platform["deploy"]["nodeSelector"] == platform["train"]["nodeSelector"]
    resources = {step: each["resources"] for step, each in containers(pipeline).items()}
    assert resources["deploy"] == resources["train"]
    inputs = parameters(pipeline, "evaluate")
    assert inputs["champion"] == {"componentInputParameter": "champion"}


def test_configured_claims_are_mounted():
    pipeline, platform = compile_with(
        "train.checkpoints=pvc://kept", "base.source=pvc://weights/llama"
    )
    mounted = {
        step: {each["mountPath"]: each["constant"] for each in spec.get("pvcMount", [])}
        for step, spec in platform.items()
    }
    weights = {"/mnt/base": "weights"}
    assert mounted.pop("train") == {"/mnt/checkpoints": "kept", **weights}
    assert mounted.pop("evaluate") == mounted.pop("deploy") == weights
    assert not any(mounted.values())
    config = default_config(pipeline)
    assert (config.train.checkpoints, config.base.source) == ("/mnt/checkpoints", "/mnt/base/llama")


def branches(pipeline):
    """The tasks of the conditions, by condition."""
    components = pipeline["components"]
    return {
        task["triggerPolicy"]["condition"]: set(
            components[task["componentRef"]["name"]]["dag"]["tasks"]
        )
        for task in tasks(pipeline).values()
        if "triggerPolicy" in task
    }


def test_failed_gate_is_registered_if_there_is_a_registry():
    pipeline, platform = compile_with("registry.address=http://registry:8080")
    for step in ("deploy", "register"):
        secret = secrets(platform[step])["grocer-registry-token"]
        assert secret["keyToEnv"] == [{"secretKey": "token", "envVar": "MODEL_REGISTRY_TOKEN"}]
        assert secret["optional"] is True
    assert branches(pipeline) == {PASSED: {"deploy"}, f"!({PASSED})": {"register"}}
    both = "registry.address=http://registry:8080", "cluster.fail_if_gate_fails=true"
    pipeline, _ = compile_with(*both)
    assert tasks(pipeline)["fail-run"]["dependentTasks"] == ["register"]


def test_failed_gate_can_fail_the_run():
    pipeline, platform = compile_with(*STORE, "cluster.fail_if_gate_fails=true")
    assert branches(pipeline) == {PASSED: {"deploy"}, f"!({PASSED})": {"fail-run"}}
    assert "retryPolicy" not in tasks(pipeline)["fail-run"]
    assert "fail-run" in platform


def test_local_run_neither_retries_nor_fails_on_the_gate():
    settings = ["cluster.fail_if_gate_fails=true"]
    pipeline, _ = compile_with(*settings, name="tiny", on_cluster=False)
    assert "fail-run" not in tasks(pipeline)
    assert not any("retryPolicy" in task for task in tasks(pipeline).values())


SEVERAL = ("train.nodes=2", "train.checkpoints=s3://bucket/kept")


def job_of(pipeline):
    """The TrainJob of the train step."""
    return json.loads(parameters(pipeline, "train")["job"]["runtimeValue"]["constant"])


def test_several_processes_train_as_a_trainjob(pipeline):
    steps = set(tasks(pipeline))
    pipeline, platform = compile_with(*STORE, *SEVERAL)
    container = containers(pipeline)["train"]
    assert "accelerator" not in container["resources"]
    assert "nodeSelector" not in platform["train"]
    assert container["image"] == IMAGES.data
    assert int(platform["train"]["activeDeadlineSeconds"]) == 3 * 24 * 3600
    fields = {each["name"]: each["fieldPath"] for each in platform["train"]["fieldPathAsEnv"]}
    assert fields["GROCER_NAMESPACE"] == "metadata.namespace"
    assert fields["GROCER_POD"] == "metadata.name"
    assert job_of(pipeline)["kind"] == "TrainJob"
    assert set(tasks(pipeline)) == steps


def test_several_processes_of_a_local_run_need_no_trainjob():
    pipeline, _ = compile_with("train.processes_per_node=2", name="tiny", on_cluster=False)
    assert parameters(pipeline, "train")["job"] == {"runtimeValue": {"constant": ""}}


def test_sharded_recipe_requests_four_gpus_of_48_gb():
    checkpoints = "train.checkpoints=s3://bucket/kept"
    pipeline, platform = compile_with(*STORE, checkpoints, name="llama2-70b-fsdp")
    trainer = job_of(pipeline)["spec"]["trainer"]
    resources = {"cpu": "16", "memory": "96Gi", "nvidia.com/gpu": "4"}
    assert trainer["resourcesPerNode"] == {"limits": resources, "requests": resources}
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (1, 4)
    (patch,) = job_of(pipeline)["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    selector = {"nvidia.com/gpu.product": "NVIDIA-L40S"}
    assert node["template"]["spec"]["template"]["spec"]["nodeSelector"] == selector
    # evaluate holds the whole 4-bit base on one GPU.
    assert platform["evaluate"]["nodeSelector"]["labels"] == selector
    accelerator = containers(pipeline)["evaluate"]["resources"]["accelerator"]
    assert accelerator["resourceCount"] == "1"


@pytest.mark.parametrize("several", [(), SEVERAL])
def test_pods_and_trainjob_are_in_the_queue(several):
    pipeline, platform = compile_with(*STORE, "cluster.queue=team-a", *several)
    label = {"kueue.x-k8s.io/queue-name": "team-a"}
    labels = {step: spec.get("podMetadata", {}).get("labels") for step, spec in platform.items()}
    assert labels.pop("train") == (None if several else label)
    assert list(labels.values()) == [label] * len(labels)
    if several:
        assert job_of(pipeline)["metadata"]["labels"] == label


def test_data_is_the_only_required_parameter(pipeline):
    inputs = pipeline["root"]["inputDefinitions"]["parameters"]
    required = {name for name, spec in inputs.items() if not spec.get("isOptional")}
    assert required == {"data"}


@pytest.mark.parametrize("name", RECIPES)
def test_default_parameter_is_the_configuration_of_the_recipe(name):
    checkpoints = "train.checkpoints=s3://bucket/kept"
    pipeline, _ = compile_with(checkpoints, name=name)
    assert default_config(pipeline) == recipe(name).with_settings([checkpoints])


def default_config(pipeline):
    """The default of the parameter `config`."""
    inputs = pipeline["root"]["inputDefinitions"]["parameters"]
    return RunConfig.from_json(inputs["config"]["defaultValue"])


def test_without_accelerator_none_is_requested():
    text = package(recipe("llama2-7b-t4").with_settings(["cluster.accelerator=null"])).text
    for word in ("accelerator:", "nodeSelector", "tolerations"):
        assert word not in text.replace('"accelerator"', "")


def test_steps_use_the_configured_images():
    images = Images(data="r.io/d:1", train="r.io/t:1", serve=f"r.io/s@sha256:{'a' * 64}")
    pipeline, _ = compile_with(*STORE, images=images)
    used = {step: container["image"] for step, container in containers(pipeline).items()}
    assert {used[step] for step in ("ingest", "validate", "build-dataset", "gate")} == {images.data}
    assert {used[step] for step in MODEL_STEPS} == {images.train}
    assert {used[step] for step in ("find-champion", "deploy")} == {images.serve}


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(normalised(package(recipe("llama2-7b-t4").with_settings(STORE)).text))
