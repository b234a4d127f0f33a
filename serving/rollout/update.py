"""Change an InferenceService from one known state to another."""

from __future__ import annotations

from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from serving.rollout.inference_service import State, apply_configuration, read_state
from serving.rollout.kubernetes import ChangedError, Cluster

_ATTEMPTS = 10


class SupersededError(DeployError):
    """Another process has changed what the InferenceService serves."""


def update(cluster: Cluster, config: DeployConfig, current: State, new: State) -> None:
    """Apply `new` if the InferenceService is still in the state `current`.

    The request holds the resource version that was read, so that no change in between is
    overwritten. KServe's controller, which only writes the status, changes the version too: then
    the state is read and compared again.

    Raises:
        SupersededError: another process has changed the state.
        DeployError: the request failed.
    """
    for _ in range(_ATTEMPTS):
        found = cluster.inference_service(config.name)
        if (state := read_state(found)) != current:
            if state == new:  # the response to an earlier request was lost
                return
            raise SupersededError(
                f"{config.service} was changed by another deploy, promote or rollback; nothing was "
                "overwritten: start again from what it serves now"
            )
        try:
            cluster.apply(apply_configuration(config, new, found["metadata"]["resourceVersion"]))
            return
        except ChangedError:
            continue
    raise DeployError(f"{config.service} changed {_ATTEMPTS} times while it was updated; try again")
