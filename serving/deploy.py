"""Deploy: a bundle in the store, rolled out by KServe, and seen to answer; or all as it was.

Nothing is called deployed before the new predictor itself has answered with the bundle's digest.
Where it does not come up, the InferenceService gets back what it served before.
"""

from __future__ import annotations

from collections.abc import Sequence

from grocer.bundle import Bundle
from grocer.console import say
from grocer.errors import DeployError
from grocer.settings import DeployConfig
from grocer.store import publish
from serving.cluster import Cluster
from serving.inference_service import Canary, Served, canary, fields, served
from serving.rollout import wait
from serving.smoke import Answer, ask_at

_SETTLE_SECONDS = 30.0
"""For routes to follow a rollout that is complete."""


def deploy(
    bundle: Bundle, config: DeployConfig, names: Sequence[str], cluster: Cluster | None = None
) -> list[Answer]:
    """Publish a bundle, roll it out and ask it for `names`.

    With `config.canary` it gets that share of the requests beside the bundle that serves; the
    first one of all serves alone.

    Returns:
        V1's predictions, each with its `product_name`.

    Raises:
        OutputError: the store can't be written.
        DeployError: it did not come up, or did not answer; what served before serves again.
    """
    assert config.store is not None
    cluster = cluster or Cluster.connect(config.namespace)
    service = cluster.inference_service(config.name)
    former, under_way = served(service), canary(service)
    uri = publish(bundle, config.store)
    if former is None or not config.canary:
        new = Served(uri, bundle.digest, former.part if former else "")
        applied = fields(config, new)
    else:
        new = Served(uri, bundle.digest, f"c{bundle.digest[:8]}")
        if new.part == former.part:
            raise DeployError(f"{config.name} serves {bundle.digest[:12]} already: no canary of it")
        applied = fields(config, former, Canary(new, config.canary))
    say("deploy", f"{config.namespace}/{config.name}: {_told(former)} → {bundle.digest[:12]}")
    cluster.apply(config.name, applied)
    try:
        wait(cluster, config.name, new, config.timeout_seconds)
        return ask_at(_address(config, new), names, bundle.digest, seconds=_SETTLE_SECONDS)
    except DeployError as error:
        raise DeployError(f"{error}; {_undo(cluster, config, new, former, under_way)}") from error


def promote(config: DeployConfig, cluster: Cluster | None = None) -> str:
    """Let the canary serve alone; its pods are those that ran already.

    Returns:
        What was done, for a person.

    Raises:
        DeployError: there is no canary, or it is not ready.
    """
    cluster = cluster or Cluster.connect(config.namespace)
    found = _canary(cluster, config)
    cluster.apply(config.name, fields(config, found.served))
    wait(cluster, config.name, found.served, config.timeout_seconds)
    return f"{config.namespace}/{config.name} serves {found.served.digest} alone"


def rollback(config: DeployConfig, cluster: Cluster | None = None) -> str:
    """Take the canary away; what served beside it serves alone.

    Returns:
        What was done, for a person.

    Raises:
        DeployError: there is no canary.
    """
    cluster = cluster or Cluster.connect(config.namespace)
    found = _canary(cluster, config)
    stable = served(cluster.inference_service(config.name))
    assert stable is not None
    cluster.apply(config.name, fields(config, stable))
    wait(cluster, config.name, stable, config.timeout_seconds)
    gone = found.served.digest[:12]
    return f"{config.namespace}/{config.name} serves {stable.digest} alone; {gone} is gone"


def champion(config: DeployConfig, cluster: Cluster | None = None) -> str:
    """The address of the bundle that serves now; empty before the first deploy."""
    cluster = cluster or Cluster.connect(config.namespace)
    found = served(cluster.inference_service(config.name))
    return found.uri if found else ""


def _canary(cluster: Cluster, config: DeployConfig) -> Canary:
    found = canary(cluster.inference_service(config.name))
    if found is None:
        raise DeployError(
            f"{config.namespace}/{config.name} has no canary; deploy one with --canary PERCENT"
        )
    return found


def _undo(
    cluster: Cluster,
    config: DeployConfig,
    new: Served,
    former: Served | None,
    under_way: Canary | None,
) -> str:
    """Let the InferenceService serve what it served before; what was done, in words."""
    try:
        if former is None:
            cluster.apply(config.name, fields(config, new, stopped=True))
            return "nothing served before, so its pods were stopped"
        cluster.apply(config.name, fields(config, former, under_way))
        wait(cluster, config.name, former, config.timeout_seconds)
    except DeployError as error:
        return f"and what served before ({_told(former)}) did not come back: {error}"
    return f"{former.digest[:12]} serves again"


def _address(config: DeployConfig, bundle: Served) -> str:
    host = f"{bundle.deployment(config.name)}.{config.namespace}.svc"
    return (config.address or f"http://{host}").rstrip("/")


def _told(former: Served | None) -> str:
    return former.digest[:12] if former else "nothing"
