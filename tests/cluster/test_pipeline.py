"""Protects the whole: `grocer submit`, Kubeflow's steps, and what is served at their end.

Needs Kubeflow Pipelines in the namespace kubeflow, KServe, the three images and a store.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grocer.io import storage as remote
from serving.rollout.inference_service import stable_revision
from tests.cluster import release
from tests.cluster.api import Api, applied, kubectl
from tests.cluster.release import Namespaces, Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(7200)]

KUBEFLOW, ACCESS = "kubeflow", "grocer-test-s3"
Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def names(api: Api, kfp: str, scratch: Callable[[], Namespaces]) -> Namespaces:
    """Where the pipeline deploys; its steps run where Kubeflow is."""
    account = f"/api/v1/namespaces/{KUBEFLOW}/serviceaccounts/grocer-pipeline"
    if not api.get(account):
        pytest.skip(f"{KUBEFLOW} has no account grocer-pipeline; apply manifests/base/pipeline")
    made = Namespaces(scratch().serving, KUBEFLOW)
    applied([o for o in release.ground(made) if release.place(o) != KUBEFLOW])
    return made


@pytest.fixture(scope="module")
def data(store: Store) -> str:
    """The sample catalogue, in the store."""
    address = f"{store.address}/catalogue"
    sample = Path(__file__).parents[2] / "examples" / "catalogue"
    target = f"{address.removeprefix('s3://')}/"
    remote.file_system("s3").put(f"{sample}/", target, recursive=True)
    return address


@pytest.fixture(scope="module")
def submit(
    kfp: str, images: Path, kserve: None, names: Namespaces, store: Store, data: str, image: str
) -> Iterator[Submit]:
    """Runs `grocer submit` with the tiny recipe and some settings, and waits for its end."""
    applied(release.served("overlays/kind", names, image))
    applied(release.access(names.serving, store))
    applied(release.access(KUBEFLOW, store, name=ACCESS)[:2])
    told = {
        "deploy.store": f"{store.address}/published",
        "deploy.namespace": names.serving,
        "cluster.store_secret": ACCESS,
        "cluster.store_config": ACCESS,
        # The nodes of a test are small.
        "cluster.data_cpu": "500m",
        "cluster.model_cpu": "1000m",
    }

    def run(**settings: str) -> subprocess.CompletedProcess[str]:
        chosen = told | {key.replace("__", "."): value for key, value in settings.items()}
        words = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
        where = ["--host", kfp, "--images", str(images), "--data", data]
        command = [sys.executable, "-m", "pipelines.cli.main", "submit", *where, "--recipe", "tiny"]
        return subprocess.run([*command, *words], capture_output=True, text=True)

    yield run
    both = (f"secret/{ACCESS}", f"configmap/{ACCESS}")
    kubectl("delete", "-n", KUBEFLOW, *both, "--ignore-not-found")


def _served(api: Api, names: Namespaces) -> str:
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/{names.serving}/inferenceservices/grocer"
    found = stable_revision(api.get(path) or {})
    return found.digest if found else ""


def test_with_a_bar_that_is_too_high_nothing_is_deployed(
    submit: Submit, api: Api, names: Namespaces
) -> None:
    brief = {"tiny__steps": "300", "train__num_train_epochs": "1"}  # no model is that good anyway
    done = submit(gate__min_accuracy="0.995", **brief)
    assert done.returncode == 3, done.stderr
    assert "no: nothing new is served" in done.stdout
    assert not _served(api, names)


def test_from_tables_to_a_served_adapter(submit: Submit, api: Api, names: Namespaces) -> None:
    done = submit()
    assert done.returncode == 0, done.stderr
    assert "yes: deployed" in done.stdout
    digest = _served(api, names)
    path = f"/api/v1/namespaces/{names.serving}/pods"
    (pod,) = api.items(path, labelSelector="serving.kserve.io/inferenceservice=grocer")
    assert digest in str(pod["spec"]["containers"])
    ready = {"type": "Ready", "status": "True"}.items()
    assert any(ready <= c.items() for c in pod["status"]["conditions"])
