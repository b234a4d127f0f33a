"""Deploy: a bundle in the store, rolled out by KServe, and seen to answer; or all as it was.

Nothing is called deployed before the new predictor itself has answered with the bundle's digest.
Where it does not come up, the InferenceService gets back what it served before.
"""

from __future__ import annotations

from collections.abc import Sequence

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from grocer.progress import say
from grocer.release.bundle import Bundle
from grocer.release.registry import publish
from serving.rollout.inference_service import (
    MANAGER,
    STOP,
    Canary,
    Served,
    canary,
    fields,
    names,
    served,
    stopped_by,
)
from serving.rollout.kubernetes import Cluster
from serving.rollout.readiness import wait
from serving.rollout.smoke_test import Answer, ask_at

_SETTLE_SECONDS = 30.0
"""For routes to follow a rollout that is complete."""


def deploy(
    bundle: Bundle, config: DeployConfig, products: Sequence[str], cluster: Cluster | None = None
) -> list[Answer]:
    """Publish a bundle, roll it out and ask it for `products`.

    With `config.canary` it gets that share of the requests beside the bundle that serves; the
    first one of all serves alone. A bundle that serves already is only asked.

    Returns:
        V1's predictions, each with its `product_name`.

    Raises:
        OutputError: the store can't be written.
        DeployError: it did not come up, or did not answer; what served before serves again.
    """
    assert config.store is not None
    cluster = cluster or Cluster.connect(config.namespace)
    service = cluster.inference_service(config.name)
    _require_running(config, stopped_by(service))
    former, under_way = served(service), canary(service)
    uri = publish(bundle, config.store)
    if former and config.canary and former.digest != bundle.digest:
        new = Served(uri, bundle.digest, config.runtime, f"c{bundle.digest[:8]}")
        stable, beside = former, Canary(new, config.canary)
    else:
        new = stable = Served(uri, bundle.digest, config.runtime, former.part if former else "")
        beside = under_way if former and former.digest == bundle.digest else None
    say("deploy", f"{config.namespace}/{config.name}: {_told(former)} → {bundle.digest[:12]}")
    cluster.apply(config.name, fields(config, stable, beside))
    try:
        wait(cluster, config.name, new, config.timeout_seconds)
        url = config.address or cluster.address(new.deployment(config.name))
        return ask_at(url.rstrip("/"), products, bundle.digest, seconds=_SETTLE_SECONDS)
    except DeployError as error:
        raise DeployError(f"{error}; {_undo(cluster, config, new, former, under_way)}") from error


def champion(config: DeployConfig, cluster: Cluster | None = None) -> str:
    """The address of the bundle that serves now; empty before the first deploy.

    Raises:
        DeployError: there is no InferenceService, or it can't be read.
    """
    cluster = cluster or Cluster.connect(config.namespace)
    found = served(cluster.inference_service(config.name))
    return found.uri if found else ""


def _require_running(config: DeployConfig, stopper: str | None) -> None:
    if stopper not in (None, MANAGER):
        raise DeployError(
            f"{config.namespace}/{config.name} was stopped by {stopper}; start it first: kubectl "
            f"annotate inferenceservice {config.name} -n {config.namespace} {STOP}-"
        )


def _undo(
    cluster: Cluster,
    config: DeployConfig,
    new: Served,
    former: Served | None,
    under_way: Canary | None,
) -> str:
    """Let the InferenceService serve what it served before; what was done, in words."""
    if new == former:
        return "it was the one to serve before, too, so there is nothing to go back to"
    try:
        if not names(cluster.inference_service(config.name), new):
            return "what serves now is another deploy's and is left alone"
        if former is None:
            cluster.apply(config.name, fields(config, new, stopped=True))
            return "nothing served before, so its pods were stopped"
        cluster.apply(config.name, fields(config, former, under_way))
        wait(cluster, config.name, former, config.timeout_seconds)
    except DeployError as error:
        return f"and what served before ({_told(former)}) did not come back: {error}"
    return f"{former.digest[:12]} serves again"


def _told(former: Served | None) -> str:
    return former.digest[:12] if former else "nothing"
