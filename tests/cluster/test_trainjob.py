"""Training as a TrainJob with two pods over gloo: a killed pod, and Kueue's quota.

Requires Kubeflow Trainer with JobSet, the train image and a store; the last test Kueue too.
"""

import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from components.images import Images
from components.trainjob.run import run as train
from grocer.artifacts.adapter import Adapter
from grocer.artifacts.step import recorded, verified_files
from grocer.config.recipes import tiny
from grocer.io.storage import Storage
from pipelines.kubeflow.trainjob import train_job
from tests.cluster import installation
from tests.cluster.api import Api, apply, kubectl, wait_until
from tests.cluster.installation import Namespaces, Store
from tests.cluster.pods import pod
from tests.fixtures.training_runs import is_trained, max_difference, write_splits
from tests.manifests.kustomize import build

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

STEP = "train-step"
"""Pod in place of the train step, which runs in this process."""


class TrainStep:
    """The train step of a run with two pods; it uses the account of KUBECONFIG."""

    def __init__(self, namespace: str, store: Store, image: str, root: Path) -> None:
        self.namespace, self.store, self.image, self.root = namespace, store, image, root
        self.splits = root / "splits"
        written = write_splits(root / "written")
        with recorded("build_dataset", self.splits) as part:
            for path in written.iterdir():
                path.rename(part / path.name)

    def run(self, name: str, *settings: str) -> Path:
        """Train, and return the artifact; checkpoints of other names are not used."""
        config = tiny().with_settings(
            [
                "tiny.steps=60",
                "lora.r=4",
                "train.nodes=2",
                "train.max_steps=150",
                "train.save_steps=10",
                "train.per_device_train_batch_size=4",
                f"train.checkpoints={self.kept(name)}",
                "cluster.model_cpu=600m",
                "cluster.model_memory=2Gi",
                *settings,
            ]
        )
        out = self.root / name
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GROCER_RUN_ID", str(uuid.uuid4()))
            patch.setenv("GROCER_NAMESPACE", self.namespace)
            patch.setenv("GROCER_POD", STEP)
            train(self.splits, config, train_job(config, self.image), out)
        verified_files(out)
        return out

    def kept(self, name: str) -> str:
        """Return the address of the checkpoints of a run."""
        return f"{self.store.uri}/{self.namespace}/{name}"

    def has_checkpoint(self, name: str) -> bool:
        """Return whether a run has published a checkpoint."""
        storage = Storage(self.kept(name), setting="test")
        return any(path.endswith("whole.json") and "checkpoint-" in path for path in storage.find())


@pytest.fixture(scope="module")
def train_step(
    api: Api,
    images_file: Path,
    store: Store,
    new_namespaces: Callable[[], Namespaces],
    tmp_path_factory: pytest.TempPathFactory,
) -> TrainStep:
    """The train step in a new namespace, with manifests/trainer and access to the store."""
    if not api.serves("trainer.kubeflow.org/v1alpha1", "TrainJob"):
        pytest.skip("Kubeflow Trainer is not installed")
    names, image = new_namespaces(), Images.read(images_file).train
    apply(installation.base_objects(names))
    apply(names.rename(build("trainer")))
    apply(installation.store_access(names.steps, store)[:2])
    apply([pod(STEP, names.steps, image, ["true"])])
    return TrainStep(names.steps, store, image, tmp_path_factory.mktemp("trainjob"))


@pytest.fixture(scope="module")
def reference(train_step: TrainStep) -> Path:
    """The artifact of an uninterrupted run."""
    return train_step.run("reference")


def jobs_in(api: Api, namespace: str) -> list[str]:
    path = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs"
    return [each["metadata"]["name"] for each in api.items(path)]


def test_two_pods_train_one_adapter(train_step: TrainStep, reference: Path, api: Api) -> None:
    adapter = Adapter.read(reference)
    assert (adapter.processes, adapter.steps, adapter.resumed_from_step) == (2, 150, 0)
    assert is_trained(reference)
    wait_until("the TrainJob is deleted", lambda: not jobs_in(api, train_step.namespace))


@pytest.mark.parametrize("index", [0, 1])
def test_killed_pod_resumes_to_the_same_adapter(
    index: int, train_step: TrainStep, reference: Path
) -> None:
    name = f"killed {index}".replace(" ", "-")
    killed = threading.Event()

    def kill() -> None:
        wait_until("a checkpoint", lambda: train_step.has_checkpoint(name), 1200)
        selector = f"grocer-train=true,batch.kubernetes.io/job-completion-index={index}"
        options = ("--selector", selector, "--force", "--grace-period=0")
        kubectl("delete", "pod", "-n", train_step.namespace, *options)
        killed.set()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    out = train_step.run(name)
    assert killed.is_set()
    assert 0 < Adapter.read(out).resumed_from_step < 150
    assert max_difference(reference, out) == 0.0


def kueue_objects(namespace: str, cpu: str) -> list[dict[str, object]]:
    """Return a LocalQueue `team-a` whose ClusterQueue has a quota of CPUs."""
    version = {"apiVersion": "kueue.x-k8s.io/v1beta2"}
    flavor = {"name": "default", "resources": [{"name": "cpu", "nominalQuota": cpu}]}
    flavor["resources"].append({"name": "memory", "nominalQuota": "100Gi"})
    groups = [{"coveredResources": ["cpu", "memory"], "flavors": [flavor]}]
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return [
        {**version, "kind": "ResourceFlavor", "metadata": {"name": "default"}, "spec": {}},
        {
            **version,
            "kind": "ClusterQueue",
            "metadata": {"name": namespace},
            "spec": {"namespaceSelector": selector, "resourceGroups": groups},
        },
        {
            **version,
            "kind": "LocalQueue",
            "metadata": {"name": "team-a", "namespace": namespace},
            "spec": {"clusterQueue": namespace},
        },
    ]


def test_trainjob_waits_for_quota(
    train_step: TrainStep, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    if not api.serves("kueue.x-k8s.io/v1beta2", "LocalQueue"):
        pytest.skip("Kueue is not installed")
    namespace = train_step.namespace
    apply(kueue_objects(namespace, "1"))

    def raise_quota() -> None:
        path = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/localqueues/team-a"
        wait_until(
            "the TrainJob waits", lambda: api.get(path)["status"].get("pendingWorkloads"), 300
        )
        threading.Event().wait(10)  # two polls of the step
        apply(kueue_objects(namespace, "8"))

    raiser = threading.Thread(target=raise_quota, daemon=True)
    raiser.start()
    try:
        out = train_step.run("queued", "cluster.queue=team-a", "train.max_steps=4")
    finally:
        raiser.join(60)
        kubectl("delete", "clusterqueue", namespace, "--ignore-not-found", "--wait=false")
    assert is_trained(out)
    assert "waiting for quota of the LocalQueue team-a" in capsys.readouterr().out
