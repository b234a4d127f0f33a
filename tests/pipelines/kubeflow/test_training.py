"""The compiled pipeline: what every cluster will be told, byte by byte.

After an intended change, `.venv/bin/python -m tests.pipelines.kubeflow.test_training` regenerates
the golden file; review its diff before committing.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.images import IMAGES, Images
from grocer.config.recipes import RECIPES, recipe
from grocer.config.run import RunConfig
from pipelines.kubeflow.training import package

GOLDEN = Path(__file__).parent / "golden" / "llama2-7b-t4.yaml"
MODEL_STEPS = {"train", "evaluate"}
STEPS = {"ingest", "validate", "build-dataset", "find-champion", "gate", "deploy"} | MODEL_STEPS
STORE = ["deploy.store=s3://bucket/grocer"]


def compiled(run, images=IMAGES, **options):
    return package(run, images, **options).text


def normalised(text: str) -> str:
    """The pipeline without what changes with kfp's version or a recipe's numbers."""
    pipeline, platform = yaml.safe_load_all(text)
    pipeline["sdkVersion"] = "kfp-X"
    pipeline["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"] = "{...}"
    return yaml.safe_dump_all([pipeline, platform], width=100)


@pytest.fixture(scope="module")
def text():
    return compiled(recipe("llama2-7b-t4").with_settings(STORE))


@pytest.fixture(scope="module")
def pipeline(text):
    return next(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def platform(text):
    return platform_of(text)


def platform_of(text):
    """What Kubernetes is asked for, by step."""
    _, platform = yaml.safe_load_all(text)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor for name, executor in executors.items()}


def containers(pipeline):
    executors = pipeline["deploymentSpec"]["executors"].items()
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors}


def tasks(pipeline):
    """Every task, those behind conditions too."""
    found = dict(pipeline["root"]["dag"]["tasks"])
    for component in pipeline["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return found


def changed(*settings, images=IMAGES):
    """The recipe with other settings: the pipeline, and what Kubernetes is asked for."""
    text = compiled(recipe("llama2-7b-t4").with_settings(settings), images)
    return next(yaml.safe_load_all(text)), platform_of(text)


def test_the_pipeline_is_the_golden_one(text):
    assert normalised(text) == GOLDEN.read_text()


def test_the_command_writes_the_same_bytes_whatever_the_hash_seed(text, tmp_path):
    out = tmp_path / "grocer.yaml"
    command = [sys.executable, "-m", "pipelines.cli.main", "compile", str(out), "--set", *STORE]
    subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True)
    assert out.read_text() == text


def test_deploy_stands_behind_the_gate_and_nothing_else_does(pipeline):
    root = pipeline["root"]["dag"]["tasks"]
    assert set(pipeline["components"]["comp-condition-1"]["dag"]["tasks"]) == {"deploy"}
    assert set(root) == STEPS - {"deploy"} | {"condition-1"}
    condition = root["condition-1"]["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--gate-Output'] == true"
    assert "validate" in root["build-dataset"]["dependentTasks"]


def test_train_and_evaluate_alone_ask_for_the_t4_node(pipeline, platform):
    placed = {step for step, asked in platform.items() if "nodeSelector" in asked}
    tolerant = {step for step, asked in platform.items() if "tolerations" in asked}
    with_gpu = {
        step
        for step, container in containers(pipeline).items()
        if container["resources"].get("accelerator", {}).get("resourceType") == "nvidia.com/gpu"
    }
    assert placed == tolerant == with_gpu == MODEL_STEPS


def test_every_step_has_limits_as_its_requests_and_retries(pipeline):
    for container in containers(pipeline).values():
        asked = container["resources"]
        assert asked["resourceCpuLimit"] == asked["resourceCpuRequest"]
        assert asked["resourceMemoryLimit"] == asked["resourceMemoryRequest"]
    retried = {step for step, task in tasks(pipeline).items() if "retryPolicy" in task}
    assert retried == STEPS
    policy = tasks(pipeline)["train"]["retryPolicy"]
    assert policy["maxRetryCount"] == 2
    assert policy["backoffFactor"] == 2.0


def test_an_attempt_and_a_run_end_some_day(text, platform):
    given = yaml.safe_load_all(text)
    next(given)
    ends = next(given)["platforms"]["kubernetes"]["pipelineConfig"]["activeDeadlineSeconds"]
    assert ends == 3 * 24 * 3600
    seconds = {step: int(asked["activeDeadlineSeconds"]) for step, asked in platform.items()}
    assert {seconds.pop(step) for step in MODEL_STEPS} == {24 * 3600}
    # Its own time, a rollout's, and that of undoing it.
    assert seconds.pop("deploy") == 7200 + 2 * 900
    assert set(seconds.values()) == {7200}


def test_no_step_is_root_or_needs_to_write_to_its_image(platform):
    assert set(platform) == STEPS
    for asked in platform.values():
        assert asked["securityContext"] == {
            "runAsUser": "1000",
            "runAsGroup": "1000",
            "runAsNonRoot": True,
        }
        assert asked["emptyDirMounts"] == [{"volumeName": "tmp", "mountPath": "/tmp"}]


def test_what_can_change_under_an_unchanged_name_is_not_cached(pipeline):
    cached = {step for step, task in tasks(pipeline).items() if task.get("cachingOptions")}
    assert cached & STEPS == {"validate", "build-dataset", "train", "evaluate"}


def test_nothing_is_installed_at_run_time(pipeline):
    for container in containers(pipeline).values():
        assert "pip install" not in " ".join(container["command"])


def secrets(asked):
    return {each["secretName"]: each for each in asked.get("secretAsEnv", [])}


def test_the_hub_token_is_a_reference_that_may_be_absent(platform):
    for step in MODEL_STEPS:
        secret = secrets(platform[step])["grocer-hub-token"]
        assert secret["keyToEnv"] == [{"secretKey": "token", "envVar": "HF_TOKEN"}]
        assert secret["optional"] is True


def test_who_touches_the_object_store_finds_it_where_there_is_one(platform):
    reaching = {step for step, asked in platform.items() if "grocer-s3" in secrets(asked)}
    assert reaching == {"ingest", "train", "find-champion", "evaluate", "deploy"}
    for step in reaching:
        secret, (place,) = secrets(platform[step])["grocer-s3"], platform[step]["configMapAsEnv"]
        assert secret["optional"] is place["optional"] is True
        names = [each["envVar"] for each in secret["keyToEnv"] + place["keyToEnv"]]
        assert names == [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
        ]
        assert place["configMapName"] == "grocer-s3"


def test_what_serves_is_the_champion_unless_one_is_given(pipeline):
    champion = pipeline["root"]["dag"]["tasks"]["find-champion"]
    assert champion["inputs"]["parameters"]["bundle"] == {"componentInputParameter": "champion"}
    measured = pipeline["root"]["dag"]["tasks"]["evaluate"]["inputs"]["parameters"]["champion"]
    assert measured["taskOutputParameter"]["producerTask"] == "find-champion"


def test_without_a_store_the_predictor_runs_in_deploy_on_what_the_model_needs():
    pipeline, platform = changed()
    assert set(platform) == STEPS - {"find-champion"}
    assert platform["deploy"]["nodeSelector"] == platform["train"]["nodeSelector"]
    resources = {step: each["resources"] for step, each in containers(pipeline).items()}
    assert resources["deploy"] == resources["train"]
    given = pipeline["root"]["dag"]["tasks"]["evaluate"]["inputs"]["parameters"]["champion"]
    assert given == {"componentInputParameter": "champion"}


def test_claims_are_mounted_and_checkpoints_go_there():
    pipeline, platform = changed("train.checkpoints=pvc://kept", "base.source=pvc://weights/llama")
    mounted = {
        step: {each["mountPath"]: each["constant"] for each in asked.get("pvcMount", [])}
        for step, asked in platform.items()
    }
    weights = {"/mnt/base": "weights"}
    assert mounted.pop("train") == {"/mnt/checkpoints": "kept", **weights}
    assert mounted.pop("evaluate") == mounted.pop("deploy") == weights
    assert not any(mounted.values())
    given = pipeline["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"]
    config = RunConfig.from_json(given)
    assert (config.train.checkpoints, config.base.source) == ("/mnt/checkpoints", "/mnt/base/llama")


def test_a_no_fails_the_run_where_that_is_asked_for():
    pipeline, platform = changed(*STORE, "cluster.fail_if_gate_fails=true")
    branches = {
        condition["triggerPolicy"]["condition"]: tasks_below(pipeline, condition)
        for name, condition in tasks(pipeline).items()
        if "triggerPolicy" in condition
    }
    said = "inputs.parameter_values['pipelinechannel--gate-Output'] == true"
    assert branches == {said: {"deploy"}, f"!({said})": {"fail-run"}}
    assert "retryPolicy" not in tasks(pipeline)["fail-run"]
    assert "fail-run" in platform


def test_on_a_laptop_a_no_is_no_failure_and_nothing_is_retried():
    run = recipe("tiny").with_settings(["cluster.fail_if_gate_fails=true"])
    pipeline = next(yaml.safe_load_all(compiled(run, on_cluster=False)))
    assert "fail-run" not in tasks(pipeline)
    assert not any("retryPolicy" in task for task in tasks(pipeline).values())


def tasks_below(pipeline, task):
    return set(pipeline["components"][task["componentRef"]["name"]]["dag"]["tasks"])


def test_a_run_needs_only_its_data(pipeline):
    given = pipeline["root"]["inputDefinitions"]["parameters"]
    required = {name for name, spec in given.items() if not spec.get("isOptional")}
    assert required == {"data"}


@pytest.mark.parametrize("name", RECIPES)
def test_the_configuration_of_each_recipe_is_the_default(name):
    run = recipe(name)
    pipeline = next(yaml.safe_load_all(compiled(run)))
    given = pipeline["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"]
    assert type(run).from_json(given) == run


def test_without_an_accelerator_any_node_will_do():
    text = compiled(
        recipe("llama2-7b-t4").with_settings(["cluster.accelerator=null", "cluster.retries=0"])
    )
    for word in ("accelerator:", "nodeSelector", "tolerations", "retryPolicy"):
        assert f"{word}" not in text.replace('"accelerator"', "")


def test_images_are_taken_as_given():
    images = Images(data="r.io/d:1", train="r.io/t:1", serve=f"r.io/s@sha256:{'a' * 64}")
    pipeline, _ = changed(*STORE, images=images)
    used = {step: container["image"] for step, container in containers(pipeline).items()}
    assert {used[step] for step in ("ingest", "validate", "build-dataset", "gate")} == {images.data}
    assert {used[step] for step in MODEL_STEPS} == {images.train}
    assert {used[step] for step in ("find-champion", "deploy")} == {images.serve}


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(normalised(compiled(recipe("llama2-7b-t4").with_settings(STORE))))
