"""Decisions about canaries as events of the InferenceService; Kubernetes keeps them an hour."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from grocer.artifacts.base import Record
from grocer.artifacts.canary_decision import CanaryDecision
from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from grocer.progress import say
from serving.rollout.inference_service import FIELD_MANAGER, GROUP, VERSION
from serving.rollout.kubernetes import Cluster

KIND = "InferenceService"
_ANNOTATION = "grocer-deploy/decision"
_MAX_CHARACTERS = 1024
_REASONS = {
    "hold": "CanaryHeld",
    "continue": "CanaryContinued",
    "promote": "CanaryPromoted",
    "roll_back": "CanaryRolledBack",
}


class TimedDecision(Record):
    time: datetime
    decision: CanaryDecision


def record(cluster: Cluster, config: DeployConfig, decision: CanaryDecision) -> None:
    """Write a decision to the log and as an event; without the event, the rollout goes on."""
    say("deploy", f"{config.service}: {decision.text}")
    for signal in () if decision.action == "hold" else decision.signals:
        say("deploy", f"{'passed' if signal.passed else 'WORSE'}: {signal.rule}: {signal.sentence}")
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        service = cluster.inference_service(config.name)
        involved = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": config.name}
        involved |= {"namespace": config.namespace, "uid": service["metadata"].get("uid", "")}
        body = {
            "metadata": {
                # As in client-go: the API lists by name, so events of one second stay in order.
                "name": f"{config.name}.{time.time_ns():x}",
                "annotations": {_ANNOTATION: decision.model_dump_json()},
            },
            "involvedObject": involved,
            "reason": _REASONS[decision.action],
            "message": decision.text[:_MAX_CHARACTERS],
            "type": "Warning" if decision.action == "roll_back" else "Normal",
            "source": {"component": FIELD_MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        cluster.create_event(body)
    except DeployError as error:
        say("deploy", f"the decision could not be written as an event: {error}")


def decisions(cluster: Cluster, service: str) -> list[TimedDecision]:
    """Return the decisions that Kubernetes still has, oldest first."""
    found = []
    for event in cluster.events(KIND, service):
        text = (event.metadata.annotations or {}).get(_ANNOTATION)
        if text and event.last_timestamp:
            decision = CanaryDecision.model_validate_json(text)
            found.append(TimedDecision(time=event.last_timestamp, decision=decision))
    return found
