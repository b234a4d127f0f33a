"""The canary's share of the traffic, read from the HTTPRoute that the gateway follows.

KServe's controller writes the weights into the HTTPRoute. The status of the InferenceService only
repeats the specification, also if the controller splits no traffic.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from grocer.progress import say
from serving.rollout.inference_service import MIN_KSERVE, Revision
from serving.rollout.kubernetes import Cluster
from serving.rollout.readiness import LABEL

SHIFT_SECONDS = 60.0
"""How long the controller and the gateway may take to shift traffic."""
PROXY_SECONDS = 5.0
"""How long the gateway's proxies may take to follow a route that it has accepted (Traefik: 2 s).
Until then they send requests to a predictor that should have no traffic any more."""
_CONDITIONS = ("Accepted", "ResolvedRefs")


def wait_for_traffic(
    cluster: Cluster, config: DeployConfig, canary: Revision, percent: int
) -> None:
    """Wait until the gateway sends `percent` percent of the requests to a canary.

    Raises:
        DeployError: it does not within `SHIFT_SECONDS`.
    """
    digest, service = canary.digest[:12], canary.deployment(config.name)
    say("deploy", f"{config.service}: shifting {percent} % of traffic to {digest}")
    problem = ""
    for _ in cluster.watch_deployments(f"{LABEL}={config.name}", SHIFT_SECONDS):
        problem = _problem(cluster.http_route(config.name), service, percent)
        if not problem:
            time.sleep(PROXY_SECONDS)
            return
    raise DeployError(
        f"the gateway does not send {percent} % of the traffic to {digest}: HTTPRoute "
        f"{config.service} {problem}"
    )


def traffic_percent(route: Mapping[str, Any], service: str) -> float:
    """Return the lowest percentage of requests that a rule of an HTTPRoute sends to a Service."""
    return min((_percent(rule, service) for rule in route["spec"].get("rules") or []), default=0.0)


def _percent(rule: Mapping[str, Any], service: str) -> float:
    weights = [(ref["name"], ref.get("weight", 1)) for ref in rule.get("backendRefs") or []]
    total = sum(weight for _, weight in weights)
    own = sum(weight for name, weight in weights if name == service)
    return 100 * own / total if total else 0.0


def _problem(route: Mapping[str, Any] | None, service: str, percent: int) -> str:
    """Return why the gateway does not send `percent` to a Service, or an empty string."""
    version = ".".join(map(str, MIN_KSERVE))
    if route is None:
        return (
            "does not exist; a canary requires manifests/components/canary, and KServe with "
            "ingress.enableGatewayApi"
        )
    found = traffic_percent(route, service)
    if found != percent:
        return f"has {found:g} %; a canary requires KServe {version} or newer"
    parents = (route.get("status") or {}).get("parents") or []
    for parent in parents:
        for condition in parent.get("conditions") or []:
            if condition["type"] in _CONDITIONS and condition["status"] != "True":
                reason = condition.get("message") or condition.get("reason", "")
                return f"has the condition {condition['type']}={condition['status']}: {reason}"
    if not any(_is_current(parent, route) for parent in parents):
        return "is not accepted by a gateway yet; check the Gateway and its controller"
    return ""


def _is_current(parent: Mapping[str, Any], route: Mapping[str, Any]) -> bool:
    """Return whether a gateway has accepted this generation of the route."""
    generation = route["metadata"].get("generation", 0)
    accepted = {
        condition["type"]
        for condition in parent.get("conditions") or []
        if condition["status"] == "True" and condition.get("observedGeneration", 0) >= generation
    }
    return accepted.issuperset(_CONDITIONS)
