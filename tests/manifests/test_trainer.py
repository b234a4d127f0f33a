"""Protects the TrainJob for several GPUs; its fields and pods are checked with all others."""

from __future__ import annotations

import importlib

from tests.manifests.kustomize import ROOT, Object, documents


def manifest(name: str) -> Object:
    (found,) = documents(ROOT / "trainer" / f"{name}.yaml")
    return found


def container() -> tuple[Object, Object]:
    (job,) = manifest("runtime")["spec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    return pod, only


def test_the_job_runs_the_runtime_beside_it() -> None:
    reference = manifest("trainjob")["spec"]["runtimeRef"]
    runtime = manifest("runtime")
    assert (reference["kind"], reference["name"]) == (runtime["kind"], runtime["metadata"]["name"])
    processes = manifest("trainjob")["spec"]["trainer"]["numProcPerNode"]
    limits = manifest("trainjob")["spec"]["trainer"]["resourcesPerNode"]["limits"]
    assert int(limits["nvidia.com/gpu"]) == processes


def test_the_command_is_one_that_there_is() -> None:
    _, only = container()
    flag, module, *paths = only["args"]
    assert flag == "-m"
    assert importlib.import_module(module).main
    assert len(paths) == 3


def test_its_volumes_are_there_and_its_token_is_a_secret() -> None:
    pod, only = container()
    assert {m["name"] for m in only["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    claims = [
        v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if v["name"] == "work"
    ]
    assert claims == [manifest("volume")["metadata"]["name"]]
    (token,) = (entry for entry in only["env"] if "TOKEN" in entry["name"])
    assert "value" not in token
    assert token["valueFrom"]["secretKeyRef"]["optional"]
