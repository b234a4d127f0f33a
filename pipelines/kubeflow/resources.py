"""Time limit of a pipeline, and pod settings of a task, from its image to its security context.

On a cluster kfp's compiler adds the rest of the restricted Pod Security Standard: no privilege
escalation, no capabilities, the runtime's seccomp profile.
"""

from __future__ import annotations

from typing import Any

from kfp import dsl, kubernetes

from components.trainjob import NAMESPACE_VARIABLE, POD_VARIABLE, QUEUE
from grocer.artifacts.step import IMAGE_VARIABLE, RUN_VARIABLE
from grocer.config.deployment import (
    DEPLOY_SECRET,
    DEPLOY_TOKEN,
    HUB_TOKEN_SECRET,
    REGISTRY_SECRET,
    REGISTRY_TOKEN,
    SIGNING_KEY,
    SIGNING_SECRET,
    TRUST_CONFIG,
    ClusterConfig,
)
from grocer.config.run import RunConfig
from grocer.config.stages import HUB_TOKEN
from grocer.release.trust import DIRECTORY

USER = 1000
"""User and group of the images."""
CHECKPOINTS, BASE = "/mnt/checkpoints", "/mnt/base"
TMP_SIZE = "64Gi"
"""Limit of /tmp, beyond which the pod is evicted instead of filling the node's disk.

A base model of 7 billion parameters has 14 GB.
"""
PROCESS_MB = 1111
"""Memory in MiB of a step without the base model, beside that of DuckDB."""
FOLLOW_CPU = "500m"
"""CPU of a step that only follows a TrainJob."""
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "ORAS_USER", "ORAS_PASS")
CREDENTIALS = {key: key for key in _KEYS}
ENDPOINT = {key: key for key in ("AWS_ENDPOINT_URL", "AWS_REGION")}


def pipeline(name: str, description: str, run: RunConfig) -> Any:
    """Return kfp's decorator of a pipeline with the time limit of a run."""
    config = dsl.PipelineConfig(active_deadline_seconds=run.cluster.run_timeout_seconds)
    return dsl.pipeline(name=name, description=description, pipeline_config=config)


def use_cpu(task: dsl.PipelineTask, image: str, run: RunConfig) -> None:
    """Set the image and resources of a step without the base model."""
    memory = f"{run.data.memory_limit_mb + PROCESS_MB}Mi"
    _set_limits(task, image, run.cluster.data_cpu, memory, run.cluster.data_timeout_seconds)


def use_model(task: dsl.PipelineTask, image: str, run: RunConfig) -> None:
    """Set the image and resources of a step with the base model: GPU, weights, Hub token."""
    cluster = run.cluster
    _set_limits(task, image, cluster.model_cpu, cluster.model_memory, cluster.model_timeout_seconds)
    if cluster.accelerator is not None:
        task.set_accelerator_type(cluster.accelerator).set_accelerator_limit(1)
        for label, value in sorted(cluster.node_selector.items()):
            kubernetes.add_node_selector(task, label, value)
        kubernetes.add_toleration(
            task, key=cluster.accelerator, operator="Exists", effect="NoSchedule"
        )
    if claim := claim_of(run.base.source):
        kubernetes.mount_pvc(task, claim, BASE)
    kubernetes.use_secret_as_env(task, HUB_TOKEN_SECRET, {"token": HUB_TOKEN}, optional=True)


def use_deploy(task: dsl.PipelineTask, image: str, run: RunConfig) -> None:
    """Set the image and resources of deploy, which loads the model itself if there is no store."""
    kubernetes.use_secret_as_volume(task, SIGNING_SECRET, SIGNING_KEY, optional=True)
    if run.deploy.store is None:
        use_model(task, image, run)
        return
    use_cpu(task, image, run)
    kubernetes.use_secret_as_volume(task, DEPLOY_SECRET, DEPLOY_TOKEN, optional=True)
    # A rollout and its rollback can both take the whole timeout, and so can each step of a canary.
    deploy = run.deploy
    seconds = run.cluster.data_timeout_seconds + 2 * deploy.timeout_seconds
    if deploy.analysis:
        step_seconds = deploy.timeout_seconds + deploy.analysis_seconds
        seconds += len(deploy.canary) * step_seconds + deploy.timeout_seconds
    kubernetes.set_timeout(task, round(seconds))


def mount_checkpoints(task: dsl.PipelineTask, run: RunConfig) -> None:
    """Mount the claim of `train.checkpoints`, if it names one."""
    if claim := claim_of(run.train.checkpoints):
        kubernetes.mount_pvc(task, claim, CHECKPOINTS)


def claim_of(address: str | None) -> str | None:
    """Return the PersistentVolumeClaim of `pvc://CLAIM/PATH`; None for any other address."""
    scheme, _, path = (address or "").partition("://")
    return path.partition("/")[0] if scheme == "pvc" else None


def with_mount_paths(run: RunConfig) -> RunConfig:
    """Return the run with mount paths instead of `pvc://` addresses."""
    addresses = (
        ("base.source", run.base.source, BASE),
        ("train.checkpoints", run.train.checkpoints or "", CHECKPOINTS),
    )
    return run.with_settings(
        [
            f"{key}={address.replace(f'pvc://{claim}', path, 1)}"
            for key, address, path in addresses
            if (claim := claim_of(address))
        ]
    )


def harden(task: dsl.PipelineTask) -> None:
    """Run as a non-root user, with a writable /tmp for the caches that the images put there."""
    kubernetes.set_security_context(task, USER, USER, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=TMP_SIZE)


def use_object_store(task: dsl.PipelineTask, cluster: ClusterConfig) -> None:
    """Set the object store's credentials and endpoint, from `cluster.store_secret`."""
    name = cluster.store_secret
    kubernetes.use_secret_as_env(task, name, CREDENTIALS, optional=True)
    kubernetes.use_config_map_as_env(task, name, ENDPOINT, optional=True)


def use_registry(task: dsl.PipelineTask) -> None:
    """Set the model registry's bearer token in a step that registers a run."""
    kubernetes.use_secret_as_env(task, REGISTRY_SECRET, {"token": REGISTRY_TOKEN}, optional=True)


def identify(task: dsl.PipelineTask) -> None:
    """Tell a step its run and image, which it records for the bundle's provenance."""
    task.set_env_variable(IMAGE_VARIABLE, task.container_spec.image)
    kubernetes.use_field_path_as_env(task, RUN_VARIABLE, "metadata.labels['pipeline/runid']")


def enqueue(task: dsl.PipelineTask, queue: str) -> None:
    """Let Kueue start the step's pod when its LocalQueue has quota."""
    kubernetes.add_pod_label(task, QUEUE, queue)


def mount_trust(task: dsl.PipelineTask) -> None:
    """Mount the trusted keys and the gate policy of the platform, in a step that reads a bundle."""
    kubernetes.use_config_map_as_volume(task, TRUST_CONFIG, str(DIRECTORY), optional=True)


def use_train_job(task: dsl.PipelineTask, image: str, run: RunConfig) -> None:
    """Set the image and resources of a train step that creates a TrainJob.

    The TrainJob has its own time limit; the step may wait for quota as long as the run.
    """
    seconds = run.cluster.run_timeout_seconds
    _set_limits(task, image, FOLLOW_CPU, f"{PROCESS_MB}Mi", seconds)
    kubernetes.use_field_path_as_env(task, NAMESPACE_VARIABLE, "metadata.namespace")
    kubernetes.use_field_path_as_env(task, POD_VARIABLE, "metadata.name")


def retry(task: dsl.PipelineTask, retries: int) -> None:
    """Retry a failed task after 30 seconds, one minute and so on, up to ten minutes.

    KFP retries whatever the exit code is. So only steps with a model are retried: a failed device
    or a lack of memory may have passed. Another try changes nothing about invalid data or settings,
    or a rollout that was rolled back; requests to stores are retried within a step.
    """
    if retries:
        task.set_retry(retries, "30s", 2.0, "10m")


def _set_limits(task: dsl.PipelineTask, image: str, cpu: str, memory: str, seconds: int) -> None:
    """Set the image, the timeout, and limits that equal the requests (Guaranteed QoS)."""
    task.set_container_image(image)
    task.set_cpu_limit(cpu).set_memory_limit(memory)
    task.set_cpu_request(cpu).set_memory_request(memory)
    kubernetes.set_timeout(task, seconds)
