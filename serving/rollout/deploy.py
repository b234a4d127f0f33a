"""Deploy a bundle: publish, roll out with KServe, smoke-test, and undo on failure.

A bundle counts as deployed once the new predictor itself returns predictions with the bundle's
digest. If that fails, the InferenceService is restored to its previous revision.
"""

from __future__ import annotations

from collections.abc import Sequence

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from grocer.progress import say
from grocer.release.bundle import LoadedBundle
from grocer.release.registry import publish
from serving.rollout.inference_service import (
    FIELD_MANAGER,
    STOP_ANNOTATION,
    Canary,
    Revision,
    apply_configuration,
    find_canary,
    references,
    stable_revision,
    stopped_by,
)
from serving.rollout.kubernetes import Cluster
from serving.rollout.readiness import wait_until_ready
from serving.rollout.smoke_test import Prediction, predict

_SETTLE_SECONDS = 30.0
"""How long routes may take to follow a complete rollout."""


def deploy(
    bundle: LoadedBundle,
    config: DeployConfig,
    products: Sequence[str],
    cluster: Cluster | None = None,
) -> list[Prediction]:
    """Publish a bundle, roll it out and return its predictions for `products`.

    With `config.canary` it becomes a canary with that percentage of the traffic, except for the
    first deploy. A bundle that is already deployed is only tested again.

    Returns:
        V1 predictions, each with its `product_name`.

    Raises:
        OutputError: the store is not writable.
        DeployError: the rollout or the smoke test failed; the previous revision is restored.
    """
    if config.store is None:
        raise DeployError("deploy.store is not set")
    cluster = cluster or Cluster(config.namespace)
    service = cluster.inference_service(config.name)
    if (manager := stopped_by(service)) not in (None, FIELD_MANAGER):
        raise DeployError(
            f"{config.namespace}/{config.name} was stopped by {manager}; start it first: kubectl "
            f"annotate inferenceservice {config.name} -n {config.namespace} {STOP_ANNOTATION}-"
        )
    previous, previous_canary = stable_revision(service), find_canary(service)
    uri = publish(bundle, config.store)
    if previous and config.canary and previous.digest != bundle.digest:
        new = Revision(uri, bundle.digest, config.name, f"c{bundle.digest[:8]}")
        stable, canary = previous, Canary(new, config.canary)
    else:
        name = previous.predictor if previous else ""
        new = stable = Revision(uri, bundle.digest, config.name, name)
        canary = previous_canary if previous and previous.digest == bundle.digest else None
    say("deploy", f"{config.namespace}/{config.name}: {_short(previous)} → {_short(new)}")
    cluster.apply(apply_configuration(config, stable, canary))
    try:
        wait_until_ready(cluster, config.name, new, config.timeout_seconds)
        url = config.address or cluster.address(new.deployment(config.name))
        return predict(url.rstrip("/"), products, bundle.digest, timeout=_SETTLE_SECONDS)
    except DeployError as error:
        result = _undo(cluster, config, new, previous, previous_canary)
        raise DeployError(f"{error}; {result}") from error


def champion(config: DeployConfig, cluster: Cluster | None = None) -> str:
    """Return the URI of the stable bundle; empty before the first deploy.

    Raises:
        DeployError: there is no InferenceService, or it is not readable.
    """
    cluster = cluster or Cluster(config.namespace)
    stable = stable_revision(cluster.inference_service(config.name))
    return stable.uri if stable else ""


def _undo(
    cluster: Cluster,
    config: DeployConfig,
    new: Revision,
    previous: Revision | None,
    canary: Canary | None,
) -> str:
    """Restore the previous revision and canary, and return what was done."""
    if new == previous:
        return "no rollback: this revision was already deployed"
    try:
        if not references(cluster.inference_service(config.name), new):
            return "no rollback, as another deploy has changed the InferenceService"
        if previous is None:
            cluster.apply(apply_configuration(config, new, stopped=True))
            return "stopped its pods: there is no previous revision to restore"
        cluster.apply(apply_configuration(config, previous, canary))
        wait_until_ready(cluster, config.name, previous, config.timeout_seconds)
    except DeployError as error:
        return f"rollback to {_short(previous)} failed: {error}"
    return f"rolled back to {_short(previous)}"


def _short(revision: Revision | None) -> str:
    return revision.digest[:12] if revision else "none"
