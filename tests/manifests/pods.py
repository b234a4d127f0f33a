"""The pods that a cluster creates from a set of manifests."""

from collections.abc import Iterator
from typing import Any

from tests.manifests.kustomize import Object, containers, get


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield a name and the specification of every pod."""
    for manifest in objects:
        if manifest["kind"] == "InferenceService":
            yield "predictor", predictor(objects)
        elif manifest["kind"] not in ("ServingRuntime", "ClusterStorageContainer"):
            for spec in _pod_specs(manifest):
                yield manifest["metadata"]["name"], spec


def predictor(objects: list[Object]) -> Object:
    """Return the predictor's pod specification as KServe creates it after a deploy.

    KServe takes the pod-level fields from the ServingRuntime, overridden by the InferenceService;
    the container from the ServingRuntime; and merges the ClusterStorageContainer over its own init
    container, which has no security context. Verified on a cluster.
    """
    runtime = get(objects, "ServingRuntime")["spec"]
    service = get(objects, "InferenceService")["spec"]["predictor"]
    storage = get(objects, "ClusterStorageContainer", service["storageContainerName"])["spec"]
    pod_level = {"nodeSelector", "affinity", "tolerations", "volumes"} & runtime.keys()
    return {
        **{key: runtime[key] for key in pod_level},
        **{key: value for key, value in service.items() if key != "model"},
        "containers": runtime["containers"],
        "initContainers": [{"image": "kserve's", **storage["container"]}],
    }


def _pod_specs(tree: Any) -> Iterator[Object]:
    """Yield the pod specifications within an object."""
    if isinstance(tree, list):
        for item in tree:
            yield from _pod_specs(item)
    elif isinstance(tree, dict):
        if "containers" in tree:
            yield tree
        for value in tree.values():
            yield from _pod_specs(value)


def main_container(pod: Object) -> Object:
    """Return a pod's only container that is not an init container."""
    (container,) = (c for c in containers(pod) if c not in pod.get("initContainers", ()))
    return container
