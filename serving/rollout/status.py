"""What an InferenceService serves: bundles, traffic, readiness and decisions about canaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from grocer.artifacts.base import Count, Record
from grocer.config.deployment import DeployConfig
from serving.rollout.decision_events import TimedDecision, decisions
from serving.rollout.inference_service import State, read_state, stopped_by
from serving.rollout.kubernetes import Cluster
from serving.rollout.traffic import traffic_percent


class PredictorStatus(Record):
    """A predictor of the InferenceService."""

    role: Literal["stable", "canary"]
    digest: str
    uri: str
    traffic_percent: float | None
    """By the HTTPRoute; None if there is none."""
    ready: Count
    """Pods that are available and have the current configuration."""
    replicas: Count


class Status(Record):
    """The state of an InferenceService."""

    service: str
    stopped_by: str | None
    """Field manager that stopped all pods."""
    predictors: tuple[PredictorStatus, ...]
    decisions: tuple[TimedDecision, ...]
    """Oldest first; Kubernetes keeps events for an hour by default."""


def status(config: DeployConfig, cluster: Cluster | None = None) -> Status:
    """Return the state of the InferenceService.

    Raises:
        DeployError: it does not exist, or is not readable.
    """
    cluster = cluster or Cluster(config.namespace)
    service = cluster.inference_service(config.name)
    return Status(
        service=config.service,
        stopped_by=stopped_by(service),
        predictors=tuple(_predictors(cluster, config, read_state(service))),
        decisions=tuple(decisions(cluster, config.name)),
    )


def _predictors(cluster: Cluster, config: DeployConfig, state: State) -> Iterator[PredictorStatus]:
    route = cluster.http_route(config.name)
    for revision in state.revisions:
        name = revision.deployment(config.name)
        deployment = cluster.deployment(name)
        pods = deployment and min(
            deployment.status.available_replicas or 0, deployment.status.updated_replicas or 0
        )
        yield PredictorStatus(
            role="stable" if revision == state.stable else "canary",
            digest=revision.digest,
            uri=revision.uri,
            traffic_percent=None if route is None else traffic_percent(route, name),
            ready=pods or 0,
            replicas=deployment.spec.replicas if deployment else 0,
        )


def table(found: Status) -> str:
    """Return the state as text for a terminal."""
    lines = [found.service]
    if found.stopped_by:
        lines[0] += f": stopped by {found.stopped_by}"
    if not found.predictors:
        lines.append("no bundle deployed")
    for each in found.predictors:
        share = "no route" if each.traffic_percent is None else f"{each.traffic_percent:g} %"
        pods = f"{each.ready} of {each.replicas} pods ready"
        lines.append(f"{each.role:<8}{each.digest[:12]}  {share:>8}  {pods}  {each.uri}")
    if found.decisions:
        lines.append("decisions")
    lines += [f"{each.time:%Y-%m-%dT%H:%M:%SZ}  {each.decision.text}" for each in found.decisions]
    return "\n".join(lines)
