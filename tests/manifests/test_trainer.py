"""Tests of the TrainJob for multi-GPU training; its schema and pods are tested with the others."""

import importlib

from tests.manifests.kustomize import Object, build, get

OBJECTS = build("trainer")
RUNTIME = get(OBJECTS, "TrainingRuntime")
JOB = get(OBJECTS, "TrainJob", "grocer-train")


def pod_spec() -> Object:
    (job,) = RUNTIME["spec"]["template"]["spec"]["replicatedJobs"]
    return job["template"]["spec"]["template"]["spec"]


def test_job_refers_to_the_runtime() -> None:
    reference = JOB["spec"]["runtimeRef"]
    assert (reference["kind"], reference["name"]) == (RUNTIME["kind"], RUNTIME["metadata"]["name"])


def test_job_runs_one_process_per_gpu() -> None:
    trainer = JOB["spec"]["trainer"]
    assert int(trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"]) == trainer["numProcPerNode"]


def test_command_is_an_existing_module() -> None:
    (container,) = pod_spec()["containers"]
    flag, module, *paths = container["args"]
    assert flag == "-m"
    assert importlib.import_module(module).main
    assert len(paths) == 3


def test_volumes_and_secrets_are_defined() -> None:
    pod = pod_spec()
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    claim = volumes["work"]["persistentVolumeClaim"]["claimName"]
    assert get(OBJECTS, "PersistentVolumeClaim", claim)
    (token,) = (entry for entry in container["env"] if "TOKEN" in entry["name"])
    assert "value" not in token
    assert token["valueFrom"]["secretKeyRef"]["optional"]
