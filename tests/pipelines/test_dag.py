"""The compiled pipeline: what every cluster will be told, byte by byte.

If a change of the golden file is meant: `.venv/bin/python tests/pipelines/test_dag.py` writes it
anew; read its diff before you commit it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.images import Images
from grocer.recipes import RECIPES, recipe
from grocer.settings import ClusterConfig
from pipelines.dag import compiled

GOLDEN = Path(__file__).parent / "golden" / "llama2-7b-t4.yaml"
MODEL_STEPS = {"train", "evaluate"}
STEPS = {"ingest", "validate", "prompts", "gate", "deploy"} | MODEL_STEPS


def normalised(text: str) -> str:
    """The pipeline without what changes with kfp's version or a recipe's numbers."""
    pipeline, platform = yaml.safe_load_all(text)
    pipeline["sdkVersion"] = "kfp-X"
    pipeline["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"] = "{...}"
    return yaml.safe_dump_all([pipeline, platform], width=100)


@pytest.fixture(scope="module")
def text():
    return compiled(recipe("llama2-7b-t4"))


@pytest.fixture(scope="module")
def pipeline(text):
    return next(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def platform(text):
    """What Kubernetes is asked for, by step."""
    _, platform = yaml.safe_load_all(text)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor for name, executor in executors.items()}


def containers(pipeline):
    executors = pipeline["deploymentSpec"]["executors"].items()
    return {name.removeprefix("exec-"): executor["container"] for name, executor in executors}


def tasks(pipeline):
    conditional = pipeline["components"]["comp-condition-1"]["dag"]["tasks"]
    return {**pipeline["root"]["dag"]["tasks"], **conditional}


def test_the_pipeline_is_the_golden_one(text):
    assert normalised(text) == GOLDEN.read_text()


def test_the_command_writes_the_same_bytes_whatever_the_hash_seed(text, tmp_path):
    out = tmp_path / "grocer.yaml"
    command = [sys.executable, "-m", "pipelines.cli", "compile", str(out)]
    subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True)
    assert out.read_text() == text


def test_deploy_stands_behind_the_gate_and_nothing_else_does(pipeline):
    root = pipeline["root"]["dag"]["tasks"]
    assert set(pipeline["components"]["comp-condition-1"]["dag"]["tasks"]) == {"deploy"}
    assert set(root) == STEPS - {"deploy"} | {"condition-1"}
    condition = root["condition-1"]["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--gate-Output'] == true"
    assert "validate" in root["prompts"]["dependentTasks"]


def test_train_and_evaluate_alone_ask_for_the_t4_node(pipeline, platform):
    placed = {step for step, asked in platform.items() if "nodeSelector" in asked}
    tolerant = {step for step, asked in platform.items() if "tolerations" in asked}
    with_gpu = {
        step
        for step, container in containers(pipeline).items()
        if container["resources"].get("accelerator", {}).get("resourceType") == "nvidia.com/gpu"
    }
    assert placed == tolerant == with_gpu == MODEL_STEPS


def test_every_step_has_limits_and_retries(pipeline):
    for container in containers(pipeline).values():
        assert {"resourceCpuLimit", "resourceMemoryLimit"} <= set(container["resources"])
    retried = {step for step, task in tasks(pipeline).items() if "retryPolicy" in task}
    assert retried == STEPS
    policy = tasks(pipeline)["train"]["retryPolicy"]
    assert policy["maxRetryCount"] == 2
    assert policy["backoffFactor"] == 2.0


def test_what_can_change_under_an_unchanged_name_is_not_cached(pipeline):
    cached = {step for step, task in tasks(pipeline).items() if task.get("cachingOptions")} - {
        "condition-1"
    }
    assert cached == STEPS - {"ingest", "deploy"}


def test_nothing_is_installed_at_run_time(pipeline):
    for container in containers(pipeline).values():
        assert "pip install" not in " ".join(container["command"])


def test_the_hub_token_is_a_reference_that_may_be_absent(platform, text):
    for step in ("train", "evaluate", "deploy"):
        (secret,) = platform[step]["secretAsEnv"]
        assert secret["secretName"] == "grocer-hub-token"
        assert secret["optional"] is True


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
    run = recipe("llama2-7b-t4")
    run = run.model_copy(update={"cluster": ClusterConfig(accelerator=None, retries=0)})
    text = compiled(run)
    for word in ("accelerator:", "nodeSelector", "tolerations", "retryPolicy"):
        assert f"{word}" not in text.replace('"accelerator"', "")


def test_images_are_taken_as_given():
    images = Images(data="r.io/d:1", train="r.io/t:1", serve=f"r.io/s@sha256:{'a' * 64}")
    pipeline = next(yaml.safe_load_all(compiled(recipe("tiny"), images)))
    used = {step: container["image"] for step, container in containers(pipeline).items()}
    assert {used[step] for step in ("ingest", "validate", "prompts", "gate")} == {images.data}
    assert {used[step] for step in MODEL_STEPS} == {images.train}
    assert used["deploy"] == images.serve


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(normalised(compiled(recipe("llama2-7b-t4"))))
