"""End-to-end tests of `grocer submit` and `grocer schedule --when` on Kubeflow Pipelines.

Requires Kubeflow Pipelines in the namespace kubeflow, KServe, the three images and a store.
"""

import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from components.trainjob import GROUP, RUNTIME, VERSION
from grocer.config.deployment import TRUST_CONFIG
from grocer.ingest.corrections import Correction, append, open_table
from grocer.io.storage import file_system
from pipelines.kubeflow.client import Server
from pipelines.kubeflow.follow import FINAL
from serving.rollout.inference_service import read_state
from tests.cluster import installation
from tests.cluster.api import Api, allow_store, apply, is_ready, kubectl, predictor_pods, wait_until
from tests.cluster.conftest import Report
from tests.cluster.installation import Namespaces, Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(7200)]

KUBEFLOW, STORE_ACCESS = "kubeflow", "grocer-test-s3"
CATALOGUE = Path(__file__).parents[2] / "examples" / "catalogue"
Grocer = Callable[..., subprocess.CompletedProcess[str]]
SHORT_TRAINING = {"tiny__steps": "300", "train__num_train_epochs": "1"}
# The sample is too small for the default limits.
LOW_LIMITS = {"gate__min_accuracy": "0.3", "gate__max_ece": "0.3"}
UNTRAINED = {
    "predictor__strategy": "adapter",
    "tiny__steps": "1",
    "train__max_steps": "1",
    # Only the champion is better.
    "gate__min_accuracy": "0",
    "gate__max_ece": "1",
    "gate__min_department_recall": "0",
    "gate__baselines": "[]",
}


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
def grocer(
    kfp_host: str,
    images_file: Path,
    kserve: None,
    pipeline_namespaces: Namespaces,
    store: Store,
    data: str,
    image: str,
) -> Iterator[Grocer]:
    """Runs a command with options, the tiny recipe, and settings such as `tiny__steps`."""
    serving = pipeline_namespaces.serving
    apply(installation.kserve_objects("overlays/kind", pipeline_namespaces, image))
    apply(installation.store_access(serving, store))
    allow_store(serving, f"{store.uri}/published")
    apply(installation.store_access(KUBEFLOW, store, name=STORE_ACCESS)[:2])
    defaults = {
        "deploy.store": f"{store.uri}/published",
        "deploy.namespace": serving,
        "cluster.store_secret": STORE_ACCESS,
        # Test nodes are small.
        "cluster.data_cpu": "500m",
        "cluster.model_cpu": "1000m",
    }

    def run(name: str, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
        settings = defaults | {key.replace("__", "."): value for key, value in settings.items()}
        command = [sys.executable, "-m", "pipelines.cli.main", name, *options, "--recipe", "tiny"]
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


class Schedule:
    """A recurring run that is started each minute, if two corrections are new."""

    def __init__(self, grocer: Grocer, host: str, store: Store) -> None:
        self._grocer, self._server = grocer, Server(host=host)
        self._name = f"grocer-test-{secrets.token_hex(3)}"
        # The store may have the state of an earlier session.
        self._table = f"{store.uri}/{self._name}/corrections"
        self._state = f"{store.uri}/{self._name}/state"
        self._id, self._logs = "", dict[str, str]()

    def correct(self, name: str) -> None:
        """Import a correction."""
        row = {"who": "ann", "when": "2026-11-30T12:00:00Z", "source": "test"}
        table = open_table(self._table)
        append(table, [Correction(name=name, label="frozen", previous_label="", **row)])

    def start(self, **settings: str) -> None:
        """Create the recurring run."""
        conditions = ("--when", "2 corrections", "--corrections", self._table)
        timing = ("--name", self._name, "--cron", "* * * * *", "--state", self._state)
        result = self._grocer("schedule", *conditions, *timing, **settings)
        assert result.returncode == 0, result.stderr
        self._id = result.stdout.split()[-1]

    def runs(self) -> list[Any]:
        """Return the runs, the oldest first."""
        client = self._server.connect()
        runs = client.list_runs(page_size=100, sort_by="created_at desc").runs or []
        return [each for each in reversed(runs) if each.recurring_run_id == self._id]

    def stop(self) -> None:
        """End the runs, and delete the recurring run."""
        client = self._server.connect()
        client.disable_recurring_run(self._id)
        for each in self.runs():
            if each.state not in FINAL:
                client.terminate_run(each.run_id)
        client.delete_recurring_run(self._id)

    def wait(self, decision: str) -> str:
        """Wait until a run with a decision has succeeded, and return the logs of its steps."""

        def ended() -> str:
            for each in self.runs():
                if each.state in FINAL and each.run_id not in self._logs:
                    self._logs[each.run_id] = _logs(each.run_id)
                    assert each.state == "SUCCEEDED", self._logs[each.run_id]
            return next((log for log in self._logs.values() if decision in log), "")

        return wait_until(decision, ended, 3600)


def _logs(run_id: str) -> str:
    """Return the logs of all steps of a run."""
    selector = f"pipeline/runid={run_id}"
    return kubectl("logs", "-n", KUBEFLOW, "--selector", selector, "-c", "main", "--tail=-1")


def _ran(step: str) -> str:
    """Return what the log of a step begins with."""
    return f"component `{step}`"


@pytest.fixture
def schedule(grocer: Grocer, kfp_host: str, store: Store) -> Iterator[Schedule]:
    schedule = Schedule(grocer, kfp_host, store)
    yield schedule
    schedule.stop()


def test_failed_gate_deploys_nothing(
    grocer: Grocer, api: Api, pipeline_namespaces: Namespaces
) -> None:
    result = grocer("submit", gate__min_accuracy="0.995", **SHORT_TRAINING)
    assert result.returncode == 3, result.stderr
    assert not _deployed_digest(api, pipeline_namespaces.serving)


def test_train_step_creates_a_trainjob(grocer: Grocer, api: Api, store: Store) -> None:
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{KUBEFLOW}"
    if not api.get(f"{path}/trainingruntimes/{RUNTIME}"):
        pytest.skip("manifests/trainer is not applied")
    settings = {
        "train__nodes": "2",
        "train__max_steps": "20",
        "train__save_steps": "10",
        "train__checkpoints": f"{store.uri}/checkpoints",
        "tiny__steps": "60",
        "cluster__model_cpu": "600m",
        "gate__min_accuracy": "0.995",
    }
    result = grocer("submit", **settings)
    assert result.returncode == 3, result.stderr
    assert "2 nodes with 1 processes each" in result.stdout + result.stderr
    assert not api.items(f"{path}/trainjobs")


def test_passed_gate_deploys_the_bundle(
    grocer: Grocer, api: Api, pipeline_namespaces: Namespaces
) -> None:
    result = grocer("submit", **LOW_LIMITS)
    assert result.returncode == 0, result.stderr
    namespace = pipeline_namespaces.serving
    digest = _deployed_digest(api, namespace)
    assert digest
    (pod,) = predictor_pods(api, namespace)
    assert digest in str(pod["spec"]["containers"])
    assert is_ready(pod)


def test_recurring_run_trains_only_if_it_is_due(
    schedule: Schedule, api: Api, pipeline_namespaces: Namespaces, report: Report
) -> None:
    champion = _deployed_digest(api, pipeline_namespaces.serving)
    assert champion, "the test before this one has failed"
    schedule.correct("Granola Bites Chocolate")
    schedule.start(**UNTRAINED)
    assert _ran("ingest") not in schedule.wait("not due: 2 corrections is not met")

    schedule.correct("Reserve Natural Probiotic Shots Dairy")
    trained = schedule.wait("retraining is due: 2 corrections")
    assert "Accuracy vs champion" in trained
    assert _ran("gate") in trained
    assert _ran("deploy") not in trained
    assert _ran("ingest") not in schedule.wait("not due: the cool-down of 7 days is not over")
    assert _deployed_digest(api, pipeline_namespaces.serving) == champion
    times = [(each.created_at, each.finished_at) for each in schedule.runs() if each.state in FINAL]
    report(f"runs of the schedule: {[f'{a:%X}-{b:%X}' for a, b in times]}")
    assert all(before[1] <= after[0] for before, after in pairwise(times))
