"""The retraining pipeline: the training pipeline behind the check, with the same pod settings."""

import pytest
import yaml

from grocer.config.recipes import recipe
from pipelines.kubeflow import retraining, training

RUN = recipe("llama2-7b-t4").with_settings(
    [
        "deploy.store=s3://bucket/bundles",
        "registry.address=http://registry:8080",
        "cluster.fail_if_gate_fails=true",
    ]
)


@pytest.fixture(scope="module")
def documents():
    return list(yaml.safe_load_all(retraining.package(RUN).text))


def test_all_other_steps_depend_on_the_check(documents):
    pipeline, _ = documents
    tasks = pipeline["root"]["dag"]["tasks"]
    assert set(tasks) == {"check-due", "condition-1"}
    condition = tasks["condition-1"]["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--check-due-Output'] == true"
    assert "enableCache" not in tasks["check-due"]["cachingOptions"]
    inner = pipeline["components"]["comp-condition-1"]["dag"]["tasks"]
    assert inner["record-attempt"]["dependentTasks"] == [
        "build-dataset",
        "evaluate",
        "gate",
        "train",
    ]


def test_steps_are_configured_as_those_of_the_training_pipeline(documents):
    _, platform = documents
    _, expected = yaml.safe_load_all(training.package(RUN).text)
    executors, others = (
        each["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        for each in (platform, expected)
    )
    added = {"exec-check-due", "exec-record-attempt"}
    assert {name: executors[name] for name in executors.keys() - added} == others
    for name in added:
        assert executors[name] == others["exec-find-champion"]
    assert retraining.package(RUN).steps == training.package(RUN).steps | {
        "check-due",
        "record-attempt",
    }


def test_local_run_has_its_record_in_the_output_directory():
    steps = retraining.package(recipe("tiny"), on_cluster=False).steps
    assert "check-due" in steps
    assert "record-attempt" not in steps
