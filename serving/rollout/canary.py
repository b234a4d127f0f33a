"""Promote or roll back a canary without losing requests.

KServe removes a predictor's pods and Service before the routes that point to them. So traffic is
shifted away from a predictor before it is removed.
"""

from __future__ import annotations

from dataclasses import replace

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from grocer.progress import say
from serving.rollout.inference_service import (
    Canary,
    Revision,
    apply_configuration,
    canary_traffic,
    find_canary,
    min_replicas,
    stable_revision,
)
from serving.rollout.kubernetes import Cluster
from serving.rollout.readiness import LABEL, wait_until_ready

SHIFT_SECONDS = 60.0
"""How long KServe's controller may take to shift traffic."""


def promote(config: DeployConfig, cluster: Cluster | None = None) -> str:
    """Shift all traffic to the canary, remove the stable revision, and return a summary.

    Raises:
        DeployError: there is no canary, or it cannot take all traffic; the traffic split is
            restored.
    """
    cluster = cluster or Cluster(config.namespace)
    service = cluster.inference_service(config.name)
    stable, canary = _stable_and_canary(config, service)
    revision, replicas = canary.revision, min_replicas(service)
    scaled = Canary(revision, 100, replicas or None)
    try:
        cluster.apply(apply_configuration(config, stable, scaled))
        wait_until_ready(cluster, config.name, revision, config.timeout_seconds, replicas=replicas)
        if not _wait_for_traffic(cluster, config, scaled):
            raise DeployError(f"KServe's controller shifts no traffic to {revision.digest[:12]}")
    except DeployError as error:
        cluster.apply(apply_configuration(config, stable, canary))
        raise DeployError(
            f"{error}; restored the canary's traffic to {canary.traffic_percent} %"
        ) from error
    cluster.apply(apply_configuration(config, revision))
    wait_until_ready(cluster, config.name, revision, config.timeout_seconds, replicas=replicas)
    return f"{config.namespace}/{config.name}: promoted canary {revision.digest}"


def rollback(config: DeployConfig, cluster: Cluster | None = None) -> str:
    """Shift all traffic to the stable revision, remove the canary, and return a summary.

    Raises:
        DeployError: there is no canary, or the stable revision is not ready.
    """
    cluster = cluster or Cluster(config.namespace)
    stable, canary = _stable_and_canary(config, cluster.inference_service(config.name))
    drained = replace(canary, traffic_percent=0)
    cluster.apply(apply_configuration(config, stable, drained))
    _wait_for_traffic(cluster, config, drained)
    cluster.apply(apply_configuration(config, stable))
    wait_until_ready(cluster, config.name, stable, config.timeout_seconds)
    removed = canary.revision.digest[:12]
    return f"{config.namespace}/{config.name}: removed canary {removed}, serving {stable.digest}"


def _stable_and_canary(config: DeployConfig, service: dict[str, object]) -> tuple[Revision, Canary]:
    stable, canary = stable_revision(service), find_canary(service)
    if stable is None or canary is None:
        raise DeployError(
            f"{config.namespace}/{config.name} has no canary; deploy one with --canary PERCENT"
        )
    return stable, canary


def _wait_for_traffic(cluster: Cluster, config: DeployConfig, canary: Canary) -> bool:
    """Wait for the canary's traffic percentage in the status; return False on timeout."""
    digest, percent = canary.revision.digest[:12], canary.traffic_percent
    say("deploy", f"{config.namespace}/{config.name}: shifting {percent} % of traffic to {digest}")
    for _ in cluster.watch_deployments(f"{LABEL}={config.name}", SHIFT_SECONDS):
        service = cluster.inference_service(config.name)
        if canary_traffic(service, canary.revision.predictor) == percent:
            return True
    return False
