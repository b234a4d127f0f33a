"""Deploy a bundle: publish, roll out with KServe, smoke-test, and undo on failure.

A bundle counts as deployed once the new predictor itself returns predictions with the bundle's
digest. If that fails, the InferenceService is restored to its previous revision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from grocer.config.deployment import DeployConfig, RegistryConfig
from grocer.errors import DeployError
from grocer.progress import say
from grocer.release.bundle import LoadedBundle
from grocer.release.lineage import Lineage, Version
from grocer.release.model_registry import register_verdict
from grocer.release.registry import publish
from serving.rollout.canary import drain
from serving.rollout.inference_service import (
    FIELD_MANAGER,
    STOP_ANNOTATION,
    Canary,
    Record,
    Revision,
    State,
    min_replicas,
    read_state,
    stopped_by,
)
from serving.rollout.kubernetes import Cluster
from serving.rollout.readiness import wait_until_ready
from serving.rollout.smoke_test import Prediction, predict, request_pods
from serving.rollout.traffic import wait_for_traffic
from serving.rollout.update import update

_SETTLE_SECONDS = 30.0
"""How long routes may take to follow a complete rollout."""


def deploy(
    bundle: LoadedBundle,
    config: DeployConfig,
    products: Sequence[str],
    cluster: Cluster | None = None,
    registry: RegistryConfig | None = None,
) -> list[Prediction]:
    """Publish a bundle, register it, roll it out and return its predictions for `products`.

    With `config.canary` it becomes a canary with the first percentage of the traffic, except for
    the first deploy. With `config.analysis` too, a bundle that is the canary already keeps its
    traffic, so that `progressive.analyse` resumes. A bundle that is already deployed is only tested
    again. Repeatable: after it was killed, it completes the rollout or restores the state before
    the first try.

    Returns:
        V1 predictions, each with its `product_name`.

    Raises:
        OutputError: the store is not writable.
        DeployError: the evaluation did not compare the bundle with the deployed one; or the
            rollout or the smoke test failed, and the previous state is restored.
    """
    if config.store is None:
        raise DeployError("deploy.store is not set")
    cluster = cluster or Cluster(config.namespace)
    service = cluster.inference_service(config.name)
    if (manager := stopped_by(service)) not in (None, FIELD_MANAGER):
        raise DeployError(
            f"{config.service} was stopped by {manager}; start it first: kubectl "
            f"annotate inferenceservice {config.name} -n {config.namespace} {STOP_ANNOTATION}-"
        )
    state = read_state(service)
    _require_same_champion(bundle, state.champion, config)
    wake = _waker(service, config)
    uri = publish(bundle, config.store)
    address = registry.address if registry else None
    version = register_verdict(Lineage.of_bundle(bundle, uri), address, uri)
    new, planned = _plan(state, bundle, uri, config, version)
    say("deploy", f"{config.service}: {_short(state.champion)} → {_short(new)}")
    update(cluster, config, state, planned)
    try:
        wait_until_ready(cluster, config, new, wake=wake)
        if planned.canary is not None and planned.canary.revision == new:
            wait_for_traffic(cluster, config, new, planned.canary.traffic_percent)
        url = config.address or cluster.address(new.deployment(config.name))
        return predict(url.rstrip("/"), products, bundle.digest, timeout=_SETTLE_SECONDS)
    except DeployError as error:
        result = _undo(cluster, config, planned, new, wake)
        raise DeployError(f"{error}; {result}") from error


def champion(config: DeployConfig, cluster: Cluster | None = None) -> str:
    """Return the URI of the stable bundle; empty before the first deploy.

    Raises:
        DeployError: there is no InferenceService, or it is not readable.
    """
    cluster = cluster or Cluster(config.namespace)
    stable = read_state(cluster.inference_service(config.name)).champion
    return stable.uri if stable else ""


def _waker(service: Mapping[str, Any], config: DeployConfig) -> Callable[[], None] | None:
    """Return how to start a pod of a predictor that scales to zero; None if it does not.

    Raises:
        DeployError: the gateway's URL is not set; or a canary is requested, which has no pods.
    """
    if min_replicas(service) > 0:
        return None
    if config.canary:
        raise DeployError(
            f"{config.service}: a canary of a predictor that scales to zero has no "
            "pods; deploy without --canary, or set spec.predictor.minReplicas to 1"
        )
    if config.address is None:
        raise DeployError(
            f"{config.service} scales to zero and starts pods for requests to the "
            "gateway only; set deploy.address to its URL there"
        )
    return partial(request_pods, config.address.rstrip("/"))


def _require_same_champion(
    bundle: LoadedBundle, champion: Revision | None, config: DeployConfig
) -> None:
    """Raise DeployError unless the gate compared the bundle with the deployed one."""
    if champion is None or champion.digest == bundle.digest:
        return
    compared = bundle.manifest.evaluation.champion
    if compared is None or compared.digest != champion.digest:
        other = f"bundle {compared.digest[:12]}" if compared else "no deployed bundle"
        raise DeployError(
            f"{config.service} serves bundle {champion.digest[:12]}, but the "
            f"evaluation of {bundle.digest[:12]} compared it with {other}; start the run again, "
            "which compares it with the deployed one"
        )


def _plan(
    state: State,
    bundle: LoadedBundle,
    uri: str,
    config: DeployConfig,
    version: Version | None,
) -> tuple[Revision, State]:
    """Return the bundle's revision, and the state in which it is deployed.

    Its record holds the state before the first try to deploy it, if it was not deployed since.
    """
    stable = state.champion
    known = next((each for each in state.revisions if each.digest == bundle.digest), None)
    if known is None:
        percent = config.canary[0] if stable and config.canary else None
        steps = config.canary if percent and config.analysis else ()
        record: Record | None = Record(state.without_records(), percent, steps)
    else:
        record, version = known.record, known.version  # other labels would restart its pods
    is_canary = stable and config.canary and stable.digest != bundle.digest
    name = f"c{bundle.digest[:8]}" if is_canary else stable.predictor if stable else ""
    new = Revision(uri, bundle.digest, config.name, name, record, version)
    if not is_canary:
        return new, State(new, state.canary if known == stable else None)
    if config.analysis and state.canary and state.canary.revision == new:
        return new, state
    return new, State(stable, Canary(new, config.canary[0]))


def _undo(
    cluster: Cluster,
    config: DeployConfig,
    failed: State,
    new: Revision,
    wake: Callable[[], None] | None,
) -> str:
    """Restore the state in the record of `new`, and return what was done."""
    if new.record is None:
        return "no rollback: this revision was already deployed"
    previous = new.record.previous
    try:
        if previous.stable is None:
            update(cluster, config, failed, State(new, stopped=True))
            return "stopped its pods: there is no previous revision to restore"
        if failed.canary and failed.canary.revision == new:
            failed = drain(cluster, config, failed)
        update(cluster, config, failed, previous)
        wait_until_ready(cluster, config, previous.stable, wake=wake)
    except DeployError as error:
        return f"rollback to {_short(previous.stable)} failed: {error}"
    return f"rolled back to {_short(previous.stable)}"


def _short(revision: Revision | None) -> str:
    return revision.digest[:12] if revision else "none"
