"""The step train as a TrainJob: created, followed, adopted, failed, suspended and cancelled.

The Kubernetes API is a stand-in, and so are the pods: `Step.publish` reads the inputs from the
store and writes an artifact.
"""

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.training.train import train
from components.trainjob import INPUTS, follow
from grocer.artifacts.step import digest_of, recorded, step
from grocer.config.recipes import tiny
from grocer.config.run import RunConfig
from grocer.errors import ArtifactError, ConfigError, DeployError, StoppedError, TrainingError
from grocer.io.atomic import read_json, tree_digests
from grocer.io.storage import Storage
from grocer.io.trees import get_tree, put_tree
from pipelines.kubeflow.training import package
from pipelines.kubeflow.trainjob import train_job
from serving.rollout.kubernetes import UnreachableError
from tests.fixtures.artifacts import as_inputs
from tests.fixtures.kubeflow_server import event
from tests.fixtures.kubernetes_api import api_status, write_kubeconfig
from tests.fixtures.stage_artifacts import ADAPTER
from tests.fixtures.trainer_api import (
    JOBS,
    NAMESPACE,
    POD,
    PODS,
    WORKFLOW,
    State,
    TrainerApi,
    condition,
    pod,
)
from tests.manifests.kustomize import build, get

RUN_ID = "0b5f1e7a-7d7c-4c0e-9b56-0d9a8c1f2e3d"
IMAGE = "grocer-train:1"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[TrainerApi]:
    with TrainerApi() as api:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "kubeconfig", api.url)))
        monkeypatch.setenv("GROCER_NAMESPACE", NAMESPACE)
        monkeypatch.setenv("GROCER_POD", POD)
        monkeypatch.setenv("GROCER_RUN_ID", RUN_ID)
        monkeypatch.delenv("GROCER_EVENTS", raising=False)
        monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)
        yield api


class Step:
    """The step train of one run."""

    def __init__(self, store: str, root: Path, *settings: str) -> None:
        self.root, self.out = root, root / "model"
        shape = ["train.nodes=2", "train.processes_per_node=2", f"train.checkpoints={store}"]
        self.config = tiny().with_settings([*shape, *settings])
        self.splits = root / "splits"
        if not self.splits.exists():
            with step("build_dataset", self.splits) as part:
                (part / "train.parquet").write_bytes(b"rows")
        self.metrics: dict[str, float] = {}

    @property
    def storage(self) -> Storage:
        address = f"{self.config.train.checkpoints}/trainjobs/grocer-{RUN_ID}"
        return Storage(address, setting="test")

    def run(self) -> None:
        train.python_func(
            **as_inputs(
                {"splits": self.splits, "model": self.out, "page": self.root / "loss.html"}
            ),
            config=self.config.to_json(),
            job=json.dumps(train_job(self.config, IMAGE)),
            metrics=SimpleNamespace(log_metric=self.metrics.__setitem__),
        )

    def publish(self) -> None:
        """Do what the first node of the TrainJob does."""
        work = self.root / f"node {len(list(self.root.iterdir()))}"
        assert get_tree(self.storage, "splits", work / "splits") is None
        config = RunConfig.from_json(self.storage.read_bytes("config.json").decode())
        assert config == self.config
        with recorded("train", work / "model", {"splits": work / "splits"}) as part:
            ADAPTER.write(part)
            (part / "loss.html").write_text("<svg/>")
        put_tree(work / "model", self.storage, "model")
        self.published = tree_digests(work / "model")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory in place of the object store, which is slower."""
    directory = str(tmp_path / "store")
    monkeypatch.setattr("components.trainjob.run.store_of", lambda config: directory)
    monkeypatch.setattr("pipelines.kubeflow.trainjob.store_of", lambda config: directory)
    return directory


@pytest.fixture
def train_step(store: str, tmp_path: Path) -> Step:
    return Step(store, tmp_path)


@pytest.fixture
def s3_step(bucket: str, tmp_path: Path) -> Step:
    return Step(f"s3://{bucket}/checkpoints", tmp_path)


def stamped(*lines: str) -> str:
    """Return a log with a time stamp on each line."""
    return "".join(f"2026-11-30T09:00:{n:02}.000000000Z {line}\n" for n, line in enumerate(lines))


def test_trainjob_is_created_followed_and_deleted(
    api: TrainerApi, s3_step: Step, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (
        event("started", "train"),
        event("progress", "train", text="10/20 steps", done=10, total=20),
        "grocer | train | 10/20 steps",
        event("succeeded", "train", seconds=1.0),
    )
    log = stamped(*(line.rstrip("\n") for line in lines))
    running = State(pods=[pod(), pod(1, "Pending", unscheduled="0/3 nodes are available")])
    complete = State(
        condition("Complete"), pods=[pod(phase="Succeeded")], log=log, enter=s3_step.publish
    )
    api.script = [
        State(),
        running,
        State(pods=[pod(), pod(1)], log=log.partition("\n")[0]),
        complete,
    ]
    s3_step.run()

    (job,) = api.created
    assert job["metadata"]["name"] == f"grocer-{RUN_ID}"
    assert job["metadata"]["ownerReferences"] == [WORKFLOW]
    trainer = job["spec"]["trainer"]
    assert trainer["args"] == [s3_step.storage.address]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 2)
    assert {"name": "GROCER_RUN_ID", "value": RUN_ID} in trainer["env"]
    assert [options["propagationPolicy"] for options in api.deleted] == ["Foreground"]
    assert not s3_step.storage.exists()

    assert tree_digests(s3_step.out) == s3_step.published
    record = read_json(s3_step.out / "artifact.json")
    assert record["inputs"] == {"splits": digest_of(s3_step.splits)}
    assert s3_step.metrics["steps"] == ADAPTER.steps
    assert (s3_step.root / "loss.html").read_text() == "<svg/>"

    output = capsys.readouterr().out
    assert output.count('"event": "started"') == output.count('"event": "succeeded"') == 1
    assert output.count("grocer | train | 10/20 steps") == 1
    assert output.count('"total": 20') == 1
    assert "0/3 nodes are available" in output
    assert "TrainJob: 2 of 2 pods are running" in output


def test_step_that_was_killed_adopts_its_trainjob(
    api: TrainerApi, train_step: Step, capsys: pytest.CaptureFixture[str]
) -> None:
    first = multiprocessing.get_context("fork").Process(target=train_step.run)
    api.script = [State(enter=lambda: os.kill(first.pid, signal.SIGKILL))]
    first.start()
    first.join()
    assert first.exitcode == -signal.SIGKILL
    assert len(api.created) == 1
    assert not api.deleted

    api.script = [State(pods=[pod()]), State(condition("Complete"), enter=train_step.publish)]
    train_step.run()
    assert len(api.created) == len(api.deleted) == 1
    assert "following" in capsys.readouterr().out
    assert tree_digests(train_step.out) == train_step.published


def test_trainjob_of_another_configuration_is_neither_adopted_nor_deleted(
    api: TrainerApi, store: str, train_step: Step, tmp_path: Path
) -> None:
    api.script = [State(), State(condition("Complete"), enter=train_step.publish)]
    train_step.run()
    assert api.created[0]["metadata"]["annotations"][INPUTS]
    del api.job["metadata"]["deletionTimestamp"]
    other = Step(store, tmp_path, "lora.r=4")
    other.out = tmp_path / "other"
    with pytest.raises(TrainingError, match="kubectl -n kubeflow delete trainjob"):
        other.run()
    assert len(api.created) == len(api.deleted) == 1


def test_trainjob_that_is_being_deleted_is_waited_for(api: TrainerApi, train_step: Step) -> None:
    metadata = {"name": f"grocer-{RUN_ID}", "deletionTimestamp": "now"}
    api.job = {"kind": "TrainJob", "metadata": metadata, "spec": {}}
    api.polls_until_gone = 2
    api.script = [State(condition("Complete"), enter=train_step.publish)]
    train_step.run()
    assert len(api.created) == 1


OOM = {"exitCode": 137, "reason": "OOMKilled"}
ERROR = {"exitCode": 1, "reason": "Error"}
USER_ERROR = {"exitCode": 2, "reason": "Error"}
LATER = {"finishedAt": "2026-11-30T10:00:00Z"}
JOB_FAILED = condition("Failed", "jobset failed", "FailedJobs")
DEADLINE = condition("Failed", "the deadline has passed", "DeadlineExceeded")


@pytest.mark.parametrize(
    ("terminated", "failed", "error", "message"),
    [
        ((ERROR | LATER, OOM), JOB_FAILED, TrainingError, "OOMKilled.*cluster.model_memory"),
        ((USER_ERROR,), JOB_FAILED, TrainingError, "^learning rate too high$"),
        ((ERROR,), JOB_FAILED, RuntimeError, "exit code 1: grocer: learning rate too high"),
        ((), JOB_FAILED, TrainingError, "jobset failed"),
        ((ERROR,), DEADLINE, TrainingError, "the deadline has passed"),
    ],
)
def test_failed_trainjob_fails_the_step_with_the_reason_of_its_first_failed_pod(
    terminated: tuple[dict[str, object], ...],
    failed: dict[str, str],
    error: type[Exception],
    message: str,
    api: TrainerApi,
    train_step: Step,
) -> None:
    pods = [pod(index, "Failed", terminated=state) for index, state in enumerate(terminated)]
    log = "Traceback\ngrocer: learning rate too high\n"
    api.script = [State(), State(failed, pods=pods, log=log)]
    with pytest.raises(error, match=message):
        train_step.run()
    assert len(api.deleted) == 1
    assert not train_step.out.exists()


def test_suspended_trainjob_waits_for_quota(
    api: TrainerApi, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queued = Step(store, tmp_path, "cluster.queue=team-a")
    complete = State(condition("Complete"), enter=queued.publish)
    api.script = [State(suspend=True), State(suspend=True), State(), complete]
    queued.run()
    (label,) = api.created[0]["metadata"]["labels"].items()
    assert label == ("kueue.x-k8s.io/queue-name", "team-a")
    shown = [line for line in capsys.readouterr().out.splitlines() if "quota" in line]
    assert len(shown) == 2  # an event, and the line for humans
    assert all("LocalQueue team-a" in line for line in shown)


def test_cancelled_step_deletes_its_trainjob(api: TrainerApi, train_step: Step) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    cancel = State(pods=[pod()], enter=lambda: os.kill(os.getpid(), signal.SIGTERM))
    api.script = [State(), cancel]
    with pytest.raises(StoppedError):
        train_step.run()
    assert len(api.deleted) == 1
    assert signal.getsignal(signal.SIGTERM) == handler


def test_deleted_trainjob_fails_the_step(api: TrainerApi, train_step: Step) -> None:
    def delete() -> None:
        api.job["metadata"]["deletionTimestamp"] = "now"

    api.script = [State(), State(enter=delete)]
    with pytest.raises(TrainingError, match="was deleted"):
        train_step.run()


def test_api_that_is_unavailable_for_a_while_is_tolerated(
    api: TrainerApi, train_step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = [State(unavailable=True) for _ in range(3)]
    api.script = [State(), *down, State(condition("Complete"), enter=train_step.publish)]
    monkeypatch.setattr("serving.rollout.kubernetes.connect.__kwdefaults__", {"retries": 0})
    train_step.run()
    assert tree_digests(train_step.out) == train_step.published

    monkeypatch.setattr(follow, "_MAX_FAILED_POLLS", 2)
    train_step.out = train_step.root / "second"
    api.script = [State(), State(unavailable=True)]
    with pytest.raises(UnreachableError):
        train_step.run()


@pytest.mark.parametrize(
    ("method", "path", "response", "message"),
    [
        ("GET", f"{JOBS}/grocer-{RUN_ID}", (404, "404 page not found"), "install Kubeflow Trainer"),
        ("POST", JOBS, (403, api_status("trainjobs is forbidden", "")), "apply manifests/trainer"),
        ("POST", JOBS, (403, api_status("TrainingRuntime must be created", "")), "must be created"),
    ],
)
def test_error_of_the_api_fails_the_step(
    method: str,
    path: str,
    response: tuple[int, object],
    message: str,
    api: TrainerApi,
    train_step: Step,
) -> None:
    api.responses[method, path] = response
    with pytest.raises(DeployError, match=message):
        train_step.run()


def test_trainjob_that_could_not_be_read_is_not_deleted(
    api: TrainerApi, train_step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier try of the step may have created it."""
    monkeypatch.setattr("serving.rollout.kubernetes.connect.__kwdefaults__", {"retries": 0})
    api.responses["GET", f"{JOBS}/grocer-{RUN_ID}"] = 503, "the server is starting"
    with pytest.raises(UnreachableError):
        train_step.run()
    assert not {verb for verb, _, _ in api.requests} & {"create", "delete"}


@pytest.mark.parametrize(("status", "fails"), [(400, False), (404, False), (403, True)])
def test_log_that_is_not_available_yet(
    status: int, fails: bool, api: TrainerApi, train_step: Step
) -> None:
    api.responses["GET", f"{PODS}/node-0-0/log"] = status, api_status("no log", "node-0-0")
    complete = State(condition("Complete"), enter=train_step.publish)
    api.script = [State(), State(pods=[pod()]), complete]
    if fails:
        with pytest.raises(DeployError, match="no log"):
            train_step.run()
    else:
        train_step.run()


def test_log_of_a_restarted_pod_is_shown(
    api: TrainerApi, train_step: Step, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"line {number}" for number in range(4)]
    complete = State(condition("Complete"), enter=train_step.publish)
    api.script = [
        State(pods=[pod()], log=stamped(*lines[:2])),
        State(pods=[pod()], log=stamped(*lines[:3])),
        State(pods=[pod(name="restarted")], log=stamped("resuming")),
        complete,
    ]
    train_step.run()
    output = capsys.readouterr().out.splitlines()
    assert [line for line in output if line.startswith("line")] == lines[:3]
    assert "resuming" in output
    assert "grocer | train | the TrainJob's pods have started again" in output
    seconds = [query.get("sinceSeconds") for query in api.log_queries]
    assert seconds[0] is seconds[2] is None
    assert seconds[1] is not None


def test_role_grants_exactly_what_the_step_uses(api: TrainerApi, train_step: Step) -> None:
    pods = [pod(phase="Failed", terminated=ERROR)]
    api.script = [State(), State(JOB_FAILED, pods=pods, log=stamped("internal error"))]
    with pytest.raises(RuntimeError):
        train_step.run()
    assert api.requests == {
        (verb, group, resource)
        for rule in get(build("trainer"), "Role", "grocer-trainjobs")["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


@pytest.mark.parametrize("several", ["train.nodes=2", "train.processes_per_node=2"])
@pytest.mark.parametrize("address", ["null", "/mnt/checkpoints", "pvc://claim"])
def test_object_store_is_required(address: str, several: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.checkpoints.*s3://"):
        package(tiny().with_settings([several, f"train.checkpoints={address}"]))


def test_artifact_of_other_splits_is_rejected(api: TrainerApi, train_step: Step) -> None:
    def publish() -> None:
        other = train_step.root / "other"
        with step("build_dataset", other) as part:
            (part / "train.parquet").write_bytes(b"other")
        with recorded("train", train_step.root / "m", {"splits": other}) as part:
            ADAPTER.write(part)
        put_tree(train_step.root / "m", train_step.storage, "model")

    api.script = [State(), State(condition("Complete"), enter=publish)]
    with pytest.raises(ArtifactError, match="other splits"):
        train_step.run()
    assert not train_step.out.exists()


def test_completed_trainjob_without_an_artifact(api: TrainerApi, train_step: Step) -> None:
    api.script = [State(condition("Complete"))]
    with pytest.raises(ArtifactError, match="missing"):
        train_step.run()
