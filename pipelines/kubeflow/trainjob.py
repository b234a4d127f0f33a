"""The TrainJob that the train step creates if there are several processes."""

from __future__ import annotations

import re
from typing import Any

from components.trainjob import CONTAINER, GROUP, QUEUE, RUNTIME, VERSION, store_of
from grocer.artifacts.step import IMAGE_VARIABLE
from grocer.config.deployment import HUB_TOKEN_SECRET
from grocer.config.run import RunConfig
from grocer.config.stages import HUB_TOKEN
from pipelines.kubeflow.resources import BASE, CREDENTIALS, ENDPOINT, claim_of

_MANAGER = "grocer/pipeline"  # of the patch


def train_job(run: RunConfig, image: str) -> dict[str, Any]:
    """Return the TrainJob without its name, inputs and run.

    Raises:
        ConfigError: `train.checkpoints` is not in an object store.
    """
    store_of(run)
    cluster, count = run.cluster, run.train.processes_per_node
    resources = {
        "cpu": _times(cluster.model_cpu, count),
        "memory": _times(cluster.model_memory, count),
    }
    if cluster.accelerator is not None:
        resources[cluster.accelerator] = str(count)
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {"labels": {QUEUE: cluster.queue} if cluster.queue else {}},
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": RUNTIME},
            # Ends a TrainJob that was not deleted. The time in a queue does not count.
            "activeDeadlineSeconds": cluster.model_timeout_seconds,
            "trainer": {
                "image": image,
                "numNodes": run.train.nodes,
                "numProcPerNode": count,
                "resourcesPerNode": {"requests": resources, "limits": resources},
                "env": [{"name": IMAGE_VARIABLE, "value": image}, *_references(run)],
            },
            **_patches(run),
        },
    }


def _references(run: RunConfig) -> list[dict[str, Any]]:
    """Return the variables from Secrets and ConfigMaps; those of a step with the base model."""
    store = run.cluster.store_secret
    sources = [
        (HUB_TOKEN, "secretKeyRef", HUB_TOKEN_SECRET, "token"),
        *((name, "secretKeyRef", store, key) for key, name in CREDENTIALS.items()),
        *((name, "configMapKeyRef", store, key) for key, name in ENDPOINT.items()),
    ]
    return [
        {"name": name, "valueFrom": {kind: {"name": source, "key": key, "optional": True}}}
        for name, kind, source, key in sources
    ]


def _patches(run: RunConfig) -> dict[str, Any]:
    """Return the changes to the runtime's pods: the GPU's nodes, and the base's volume."""
    cluster, pod = run.cluster, dict[str, Any]()
    if cluster.accelerator is not None:
        pod["nodeSelector"] = dict(sorted(cluster.node_selector.items()))
        toleration = {"key": cluster.accelerator, "operator": "Exists", "effect": "NoSchedule"}
        pod["tolerations"] = [toleration]
    if claim := claim_of(run.base.source):
        pod["volumes"] = [{"name": "base", "persistentVolumeClaim": {"claimName": claim}}]
        mounts = [{"name": "base", "mountPath": BASE}]
        pod["containers"] = [{"name": CONTAINER, "volumeMounts": mounts}]
    if not pod:
        return {}
    job = {"name": CONTAINER, "template": {"spec": {"template": {"spec": pod}}}}
    spec = {"template": {"spec": {"replicatedJobs": [job]}}}
    return {"runtimePatches": [{"manager": _MANAGER, "trainingRuntimeSpec": spec}]}


def _times(quantity: str, count: int) -> str:
    """Return a multiple of a Kubernetes quantity."""
    number, unit = re.fullmatch(r"([0-9.]+)(.*)", quantity).groups()  # type: ignore[union-attr]
    return f"{float(number) * count:.12g}{unit}"
