"""Protects the TrainJob for several GPUs: Kubeflow Trainer's own models know every field of it."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubeflow_trainer_api.models as trainer
import pytest
import yaml

from grocer import __version__

FOLDER = Path(__file__).parents[2] / "manifests" / "trainer"


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("trainjob", trainer.TrainerV1alpha1TrainJob),
        ("runtime", trainer.TrainerV1alpha1TrainingRuntime),
        ("volume", trainer.IoK8sApiCoreV1PersistentVolumeClaim),
    ],
)
def test_every_field_is_known(name: str, model: Any) -> None:
    """The models drop a field that they don't know: it would be missing from what comes back."""
    written = manifest(name)
    assert model.from_dict(written).to_dict() == written


def container() -> tuple[dict[str, Any], dict[str, Any]]:
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


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_kustomize_builds_it_with_a_fixed_image() -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=True
    )
    documents = {document["kind"]: document for document in yaml.safe_load_all(built.stdout)}
    assert set(documents) == {"TrainJob", "TrainingRuntime", "PersistentVolumeClaim"}
    (job,) = documents["TrainingRuntime"]["spec"]["template"]["spec"]["replicatedJobs"]
    (only,) = job["template"]["spec"]["template"]["spec"]["containers"]
    assert only["image"] == f"grocer-train:{__version__}"
