"""End-to-end tests of `grocer submit` on Kubeflow Pipelines.

Requires Kubeflow Pipelines in the namespace kubeflow, KServe, the three images and a store.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grocer.config.deployment import TRUST_CONFIG
from grocer.io.storage import file_system
from serving.rollout.inference_service import read_state
from tests.cluster import installation
from tests.cluster.api import Api, apply, is_ready, kubectl, predictor_pods
from tests.cluster.installation import Namespaces, Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(7200)]

KUBEFLOW, STORE_ACCESS = "kubeflow", "grocer-test-s3"
CATALOGUE = Path(__file__).parents[2] / "examples" / "catalogue"
Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def pipeline_namespaces(
    api: Api, kfp_host: str, new_namespaces: Callable[[], Namespaces]
) -> Namespaces:
    """A new namespace for serving; the steps run in Kubeflow's."""
    account = f"/api/v1/namespaces/{KUBEFLOW}/serviceaccounts/grocer-pipeline"
    if not api.get(account):
        pytest.skip("manifests/base/pipeline is not applied")
    trust = api.get(f"/api/v1/namespaces/{KUBEFLOW}/configmaps/{TRUST_CONFIG}")
    if trust is None:
        pytest.skip(f"no ConfigMap {TRUST_CONFIG} with the public key of the signing key")
    names = Namespaces(new_namespaces().serving, KUBEFLOW)
    objects = installation.base_objects(names)
    apply([o for o in objects if installation.namespace_of(o) != KUBEFLOW])
    apply([{**trust, "metadata": {"name": TRUST_CONFIG, "namespace": names.serving}}])
    return names


@pytest.fixture(scope="module")
def data(store: Store) -> str:
    """The URI of the sample catalogue in the store."""
    uri = f"{store.uri}/catalogue"
    file_system("s3").put(f"{CATALOGUE}/", f"{uri.removeprefix('s3://')}/", recursive=True)
    return uri


@pytest.fixture(scope="module")
def submit(
    kfp_host: str,
    images_file: Path,
    kserve: None,
    pipeline_namespaces: Namespaces,
    store: Store,
    data: str,
    image: str,
) -> Iterator[Submit]:
    """Runs `grocer submit` with the tiny recipe and settings such as `tiny__steps`, and waits."""
    serving = pipeline_namespaces.serving
    apply(installation.kserve_objects("overlays/kind", pipeline_namespaces, image))
    apply(installation.store_access(serving, store))
    apply(installation.store_access(KUBEFLOW, store, name=STORE_ACCESS)[:2])
    defaults = {
        "deploy.store": f"{store.uri}/published",
        "deploy.namespace": serving,
        "cluster.store_secret": STORE_ACCESS,
        # Test nodes are small.
        "cluster.data_cpu": "500m",
        "cluster.model_cpu": "1000m",
    }

    def run(**settings: str) -> subprocess.CompletedProcess[str]:
        settings = defaults | {key.replace("__", "."): value for key, value in settings.items()}
        command = [sys.executable, "-m", "pipelines.cli.main", "submit", "--recipe", "tiny"]
        command += ["--host", kfp_host, "--images", str(images_file), "--data", data]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        return subprocess.run(command, capture_output=True, text=True)

    yield run
    objects = (f"secret/{STORE_ACCESS}", f"configmap/{STORE_ACCESS}")
    kubectl("delete", "-n", KUBEFLOW, *objects, "--ignore-not-found")


def _deployed_digest(api: Api, namespace: str) -> str:
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/grocer"
    service = api.get(path)
    revision = read_state(service).champion
    return revision.digest if revision else ""


def test_failed_gate_deploys_nothing(
    submit: Submit, api: Api, pipeline_namespaces: Namespaces
) -> None:
    short_training = {"tiny__steps": "300", "train__num_train_epochs": "1"}
    result = submit(gate__min_accuracy="0.995", **short_training)
    assert result.returncode == 3, result.stderr
    assert not _deployed_digest(api, pipeline_namespaces.serving)


def test_passed_gate_deploys_the_bundle(
    submit: Submit, api: Api, pipeline_namespaces: Namespaces
) -> None:
    # The sample is too small for the default limits.
    result = submit(gate__min_accuracy="0.3", gate__max_ece="0.3")
    assert result.returncode == 0, result.stderr
    namespace = pipeline_namespaces.serving
    digest = _deployed_digest(api, namespace)
    assert digest
    (pod,) = predictor_pods(api, namespace)
    assert digest in str(pod["spec"]["containers"])
    assert is_ready(pod)
