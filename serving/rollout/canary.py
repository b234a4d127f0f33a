"""Promote or roll back a canary without losing requests.

KServe removes a predictor's pods and Service before the routes that point to them. So traffic is
shifted away from a predictor before it is removed.
"""

from __future__ import annotations

from math import ceil

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from grocer.progress import say
from serving.rollout.inference_service import Canary, Revision, State, min_replicas, read_state
from serving.rollout.kubernetes import Cluster, UnreachableError
from serving.rollout.readiness import wait_until_ready
from serving.rollout.traffic import wait_for_traffic
from serving.rollout.update import SupersededError, update


def promote(config: DeployConfig, cluster: Cluster | None = None, digest: str | None = None) -> str:
    """Shift all traffic to the canary, remove the stable revision, and return a summary.

    Args:
        digest: of the canary; None: any.

    Raises:
        UnreachableError: the Kubernetes API did not answer; the promotion can be repeated.
        DeployError: there is no canary, or it cannot take all traffic; the traffic split is
            restored.
    """
    cluster = cluster or Cluster(config.namespace)
    service = cluster.inference_service(config.name)
    state = read_state(service)
    stable, canary = stable_and_canary(config, state, digest)
    revision, replicas = canary.revision, min_replicas(service)
    scaled = State(stable, Canary(revision, 100, replicas or None))
    update(cluster, config, state, scaled)
    try:
        wait_until_ready(cluster, config, revision, replicas=replicas)
        wait_for_traffic(cluster, config, revision, 100)
    except UnreachableError:
        raise
    except DeployError as error:
        record, percent = revision.record, canary.traffic_percent
        # A promotion or a rollback that was interrupted had changed it.
        if percent in (0, 100) and record and record.traffic_percent is not None:
            percent = record.traffic_percent
        update(cluster, config, scaled, State(stable, Canary(revision, percent)))
        raise DeployError(f"{error}; restored the canary's traffic to {percent} %") from error
    update(cluster, config, scaled, State(revision))
    wait_until_ready(cluster, config, revision, replicas=replicas)
    return f"{config.service}: promoted canary {revision.digest}"


def rollback(
    config: DeployConfig, cluster: Cluster | None = None, digest: str | None = None
) -> str:
    """Shift all traffic to the stable revision, remove the canary, and return a summary.

    Args:
        digest: of the canary; None: any.

    Raises:
        DeployError: there is no canary, or the stable revision is not ready.
    """
    cluster = cluster or Cluster(config.namespace)
    state = read_state(cluster.inference_service(config.name))
    stable, canary = stable_and_canary(config, state, digest)
    update(cluster, config, drain(cluster, config, state), State(stable))
    wait_until_ready(cluster, config, stable)
    removed = canary.revision.digest[:12]
    return f"{config.service}: removed canary {removed}, serving {stable.digest}"


def drain(cluster: Cluster, config: DeployConfig, state: State) -> State:
    """Shift all traffic away from the canary of `state`, if it has one; return the new state."""
    if (canary := state.canary) is None:
        return state
    # Without minReplicas KServe removes the pods at once, before the gateway follows the route.
    stable = min_replicas(cluster.inference_service(config.name))
    replicas = canary.min_replicas or ceil(stable * canary.traffic_percent / 100)
    drained = State(state.stable, Canary(canary.revision, 0, replicas or None), state.stopped)
    update(cluster, config, state, drained)
    try:
        wait_for_traffic(cluster, config, canary.revision, 0)
    except DeployError as error:  # must not keep a canary that is to be removed
        say("deploy", str(error))
    return drained


def stable_and_canary(
    config: DeployConfig, state: State, digest: str | None = None
) -> tuple[Revision, Canary]:
    """Return the stable revision and the canary.

    Raises:
        SupersededError: the bundle `digest` is not the canary.
        DeployError: there is no canary.
    """
    if digest and (state.canary is None or state.canary.revision.digest != digest):
        raise SupersededError(
            f"{config.service}: bundle {digest[:12]} is no longer the "
            "canary; another deploy, promote or rollback has replaced it"
        )
    if state.champion is None or state.canary is None:
        serving = f"; it serves {state.champion.digest}" if state.champion else ""
        raise DeployError(
            f"{config.service} has no canary{serving}; deploy one with --canary PERCENT"
        )
    return state.champion, state.canary
