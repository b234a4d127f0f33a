"""Every pod that comes of a set of manifests, as the cluster would make it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.manifests.kustomize import Object, containers, one


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """A name, and a pod's specification."""
    for thing in objects:
        if thing["kind"] == "InferenceService":
            yield "predictor", predictor(objects)
        elif thing["kind"] not in ("ServingRuntime", "ClusterStorageContainer"):
            yield from ((thing["metadata"]["name"], spec) for spec in _specifications(thing))


def predictor(objects: list[Object]) -> Object:
    """The predictor's pod as KServe makes it once there is a bundle.

    It takes the pod's fields from the InferenceService, over the runtime's; the container from the
    runtime; and lays the ClusterStorageContainer over its own init container, which has no
    security context. Seen to be so on a cluster.
    """
    runtime = one(objects, "ServingRuntime")["spec"]
    service = one(objects, "InferenceService")["spec"]["predictor"]
    storage = one(objects, "ClusterStorageContainer", service["storageContainerName"])["spec"]
    pod = {"nodeSelector", "affinity", "tolerations", "volumes"} & runtime.keys()
    return {
        **{key: runtime[key] for key in pod},
        **{key: value for key, value in service.items() if key != "model"},
        "containers": runtime["containers"],
        "initContainers": [{"image": "kserve's", **storage["container"]}],
    }


def _specifications(tree: Any) -> Iterator[Object]:
    """Pod specifications within an object."""
    if isinstance(tree, list):
        for each in tree:
            yield from _specifications(each)
    elif isinstance(tree, dict):
        if "containers" in tree:
            yield tree
        for value in tree.values():
            yield from _specifications(value)


def main_container(pod: Object) -> Object:
    """Its only container, but for those that come before."""
    (found,) = (c for c in containers(pod) if c not in pod.get("initContainers", ()))
    return found
