"""The retraining pipeline: the training pipeline behind the check, with the same pod settings."""

import pytest

from grocer.config.recipes import recipe
from pipelines.kubeflow import retraining, training
from tests.pipelines.kubeflow.test_training import documents

RUN = recipe("llama2-7b-t4").with_settings(
    [
        "deploy.store=s3://bucket/bundles",
        "registry.address=http://registry:8080",
        "cluster.fail_if_gate_fails=true",
    ]
)


@pytest.fixture(scope="module")
def compiled():
    return documents(retraining.package(RUN))


def test_all_other_steps_depend_on_the_check(compiled):
    pipeline, _ = compiled
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


def test_steps_are_configured_as_those_of_the_training_pipeline(compiled):
    (_, platform), (_, others) = compiled, documents(training.package(RUN))
    added = {"check-due", "record-attempt"}
    assert {name: platform[name] for name in platform.keys() - added} == others
    for name in added:
        assert platform[name] == others["find-champion"]
    assert retraining.package(RUN).steps == training.package(RUN).steps | added


def test_local_run_has_its_record_in_the_output_directory():
    steps = retraining.package(recipe("tiny"), on_cluster=False).steps
    assert "check-due" in steps
    assert "record-attempt" not in steps
