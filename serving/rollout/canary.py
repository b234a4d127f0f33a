"""A canary's end: it serves alone, or it goes.

KServe takes a predictor's pods and Service away before it changes the routes to them. So the one
that is to go is first freed of requests, and the one that stays made to bear them all.
"""

from __future__ import annotations

from dataclasses import replace

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from grocer.progress import say
from serving.rollout.inference_service import (
    Canary,
    Served,
    canary,
    fields,
    replicas,
    served,
    share,
)
from serving.rollout.kubernetes import Cluster
from serving.rollout.readiness import LABEL, wait

SHIFT_SECONDS = 60.0
"""How long KServe's controller may take to move the requests."""


def promote(config: DeployConfig, cluster: Cluster | None = None) -> str:
    """Let the canary serve alone; its pods are those that ran already.

    Returns:
        What was done, for a person.

    Raises:
        DeployError: there is no canary, or it does not come to bear all requests; then it has
            the share that it had.
    """
    cluster = cluster or Cluster.connect(config.namespace)
    service = cluster.inference_service(config.name)
    stable, beside = _both(config, service)
    new, pods = beside.served, replicas(service)
    try:
        cluster.apply(config.name, fields(config, stable, Canary(new, 100, pods or None)))
        wait(cluster, config.name, new, config.timeout_seconds, replicas=pods)
        if not _shifted(cluster, config, new, 100):
            raise DeployError(f"KServe's controller moves no requests to {new.digest[:12]}")
    except DeployError as error:
        cluster.apply(config.name, fields(config, stable, beside))
        raise DeployError(f"{error}; it has {beside.percent} % of the requests again") from error
    cluster.apply(config.name, fields(config, new))
    wait(cluster, config.name, new, config.timeout_seconds, replicas=pods)
    return f"{config.namespace}/{config.name} serves {new.digest} alone"


def rollback(config: DeployConfig, cluster: Cluster | None = None) -> str:
    """Take the canary away; what served beside it serves alone.

    Returns:
        What was done, for a person.

    Raises:
        DeployError: there is no canary, or what served beside it does not.
    """
    cluster = cluster or Cluster.connect(config.namespace)
    stable, beside = _both(config, cluster.inference_service(config.name))
    cluster.apply(config.name, fields(config, stable, replace(beside, percent=0)))
    _shifted(cluster, config, beside.served, 0)
    cluster.apply(config.name, fields(config, stable))
    wait(cluster, config.name, stable, config.timeout_seconds)
    gone = beside.served.digest[:12]
    return f"{config.namespace}/{config.name} serves {stable.digest} alone; {gone} is gone"


def _both(config: DeployConfig, service: dict[str, object]) -> tuple[Served, Canary]:
    stable, beside = served(service), canary(service)
    if stable is None or beside is None:
        raise DeployError(
            f"{config.namespace}/{config.name} has no canary; deploy one with --canary PERCENT"
        )
    return stable, beside


def _shifted(cluster: Cluster, config: DeployConfig, bundle: Served, percent: int) -> bool:
    """Whether KServe says, in due time, that a canary has that share of the requests."""
    say("deploy", f"{config.namespace}/{config.name}: {bundle.digest[:12]} → {percent} %")
    for _ in cluster.looks(f"{LABEL}={config.name}", SHIFT_SECONDS):
        if share(cluster.inference_service(config.name), bundle.part) == percent:
            return True
    return False
