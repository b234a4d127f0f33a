"""What a task's pod asks of Kubernetes, by way of kfp: limits, nodes, rights, what it finds there.

On a cluster kfp's compiler adds the rest of the restricted profile to every container: no
privilege escalation, no capabilities, the runtime's seccomp profile.
"""

from __future__ import annotations

from kfp import dsl, kubernetes

from grocer.config.deployment import HUB_TOKEN_SECRET, ClusterConfig
from grocer.config.run import RunConfig
from grocer.config.stages import HUB_TOKEN

USER = 1000  # of the images
CHECKPOINTS, BASE = "/mnt/checkpoints", "/mnt/base"
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_PLACE = ("AWS_ENDPOINT_URL", "AWS_REGION")


def on_cpu(task: dsl.PipelineTask, image: str, cluster: ClusterConfig) -> None:
    """Give a task what the steps without the model need."""
    _limit(task, image, cluster.data_cpu, cluster.data_memory, cluster.data_timeout_seconds)


def with_model(task: dsl.PipelineTask, image: str, run: RunConfig) -> None:
    """Give a task what the base model needs: a GPU, its weights, the right to fetch them."""
    cluster = run.cluster
    _limit(task, image, cluster.model_cpu, cluster.model_memory, cluster.model_timeout_seconds)
    _place_on_gpu(task, cluster)
    if claim := claim_of(run.base.source):
        kubernetes.mount_pvc(task, claim, BASE)
    kubernetes.use_secret_as_env(task, HUB_TOKEN_SECRET, {"token": HUB_TOKEN}, optional=True)


def serve_with(task: dsl.PipelineTask, image: str, run: RunConfig) -> None:
    """Give deploy what it needs: the predictor runs in it, or elsewhere where it rolls out."""
    if run.deploy.store is None:
        with_model(task, image, run)
        return
    on_cpu(task, image, run.cluster)
    # A rollout takes its time, and so does undoing it.
    seconds = run.cluster.data_timeout_seconds + 2 * run.deploy.timeout_seconds
    kubernetes.set_timeout(task, round(seconds))


def keep_checkpoints(task: dsl.PipelineTask, run: RunConfig) -> None:
    """Mount the claim of `train.checkpoints`, if it names one."""
    if claim := claim_of(run.train.checkpoints):
        kubernetes.mount_pvc(task, claim, CHECKPOINTS)


def claim_of(address: str | None) -> str | None:
    """Return the PersistentVolumeClaim of `pvc://CLAIM/PATH`; None for any other address."""
    scheme, _, path = (address or "").partition("://")
    return path.partition("/")[0] if scheme == "pvc" else None


def with_mount_paths(run: RunConfig) -> RunConfig:
    """Return the run with the mount paths of its claims instead of `pvc://` addresses."""
    addresses = (
        ("base.source", run.base.source, BASE),
        ("train.checkpoints", run.train.checkpoints or "", CHECKPOINTS),
    )
    return run.with_settings(
        [
            f"{key}={address.replace(f'pvc://{claim}', mount, 1)}"
            for key, address, mount in addresses
            if (claim := claim_of(address))
        ]
    )


def harden(task: dsl.PipelineTask) -> None:
    """Run a task's container as nobody's root; its caches go where the images say, below /tmp."""
    kubernetes.set_security_context(task, USER, USER, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp")


def reach_store(task: dsl.PipelineTask, cluster: ClusterConfig) -> None:
    """Let a task find the object store and its credentials, where there are such."""
    for name, use, keys in (
        (cluster.store_secret, kubernetes.use_secret_as_env, _CREDENTIALS),
        (cluster.store_config, kubernetes.use_config_map_as_env, _PLACE),
    ):
        use(task, name, {key: key for key in keys}, optional=True)


def retry(task: dsl.PipelineTask, times: int) -> None:
    """Try a failed task again, after 30 seconds, a minute, and so on up to ten minutes."""
    if times:
        task.set_retry(times, "30s", 2.0, "10m")


def _limit(task: dsl.PipelineTask, image: str, cpu: str, memory: str, seconds: int) -> None:
    """Run a task on an image, within limits that are its requests too: it gets what it needs."""
    task.set_container_image(image)
    task.set_cpu_limit(cpu).set_memory_limit(memory)
    task.set_cpu_request(cpu).set_memory_request(memory)
    kubernetes.set_timeout(task, seconds)


def _place_on_gpu(task: dsl.PipelineTask, cluster: ClusterConfig) -> None:
    """Ask for one GPU on the nodes that the configuration names, if it asks for any."""
    if cluster.accelerator is None:
        return
    task.set_accelerator_type(cluster.accelerator).set_accelerator_limit(1)
    for label, value in sorted(cluster.node_selector.items()):
        kubernetes.add_node_selector(task, label, value)
    kubernetes.add_toleration(task, key=cluster.accelerator, operator="Exists", effect="NoSchedule")
