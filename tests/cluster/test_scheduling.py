"""Protects that a predictor for a T4 goes to a node with one, and says what it lacks elsewhere.

Needs KServe, the predictor's image, a store, and rights to change a node: a GPU is made up on it
by its status, as Kubernetes' documentation has it, and taken away again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.api import Api, until
from tests.cluster.bundles import Bundles
from tests.cluster.pods import Ended, Steps
from tests.manifests.kustomize import Object, build, one

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

GPU = "nvidia.com/gpu"


@pytest.fixture(scope="module")
def selector() -> dict[str, str]:
    """What the overlay asks of a node."""
    return one(build("overlays/gke-t4"), "ServingRuntime")["spec"]["nodeSelector"]


@pytest.fixture(scope="module")
def plain_node(api: Api, node: str, selector: dict[str, str]) -> str:
    """A node without a GPU, in a cluster where no node is what the overlay asks for."""
    for each in api.items("/api/v1/nodes"):
        if (
            selector.items() <= each["metadata"]["labels"].items()
            or GPU in each["status"]["capacity"]
        ):
            pytest.skip(f"node {each['metadata']['name']} has a GPU, or says so; none is made up")
    return node


@contextmanager
def _a_gpu_on(api: Api, node: str, selector: dict[str, str]) -> Iterator[None]:
    """A node that says it has a T4, with the taint and the label of a GKE node pool."""
    path = f"/api/v1/nodes/{node}"
    former = (api.get(path) or {})["spec"].get("taints", [])
    taint = {"key": GPU, "value": "present", "effect": "NoSchedule"}
    try:
        api.patch(path, {"metadata": {"labels": selector}, "spec": {"taints": [*former, taint]}})
        api.patch(f"{path}/status", {"status": {"capacity": {GPU: "1"}}})
        yield
    finally:
        gone = dict.fromkeys(selector)
        api.patch(path, {"metadata": {"labels": gone}, "spec": {"taints": former or None}})
        nothing = {"status": {"capacity": {GPU: None}, "allocatable": {GPU: None}}}
        api.patch(f"{path}/status", nothing)


def _pods(api: Api, steps: Steps) -> list[Object]:
    path = f"/api/v1/namespaces/{steps.namespaces.serving}/pods"
    found = api.items(path, labelSelector="serving.kserve.io/inferenceservice=grocer")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def test_without_a_gpu_it_waits_and_deploy_says_for_what(
    plain_node: str, installed_on_t4: Steps, bundles: Bundles, figure: Callable[[str], None]
) -> None:
    ended = installed_on_t4.deploy(bundles.first, timeout_seconds=20.0)
    assert ended.code == 1, ended.log
    assert "rollout timed out after 20 s: pod is unschedulable: 0/" in ended.last
    assert "didn't match Pod's node affinity/selector" in ended.last
    figure(f"no node with a T4: {ended.last}")


def test_with_a_gpu_it_goes_there_and_has_it(
    plain_node: str,
    api: Api,
    installed_on_t4: Steps,
    bundles: Bundles,
    selector: dict[str, str],
) -> None:
    """The step's own pod tolerates no taint: it is there before the node has one."""
    ended: list[Ended] = []
    step = threading.Thread(
        target=lambda: ended.append(installed_on_t4.deploy(bundles.second, timeout_seconds=90.0))
    )
    step.start()
    try:
        until("the predictor's pod is made", lambda: _pods(api, installed_on_t4))
        with _a_gpu_on(api, plain_node, selector):
            (pod,) = until(
                "a node has taken the pod in",
                lambda: [p for p in _pods(api, installed_on_t4) if p["status"].get("podIP")],
            )
        assert pod["spec"]["nodeName"] == plain_node
        assert pod["spec"]["containers"][0]["resources"]["limits"][GPU] == "1"
    finally:
        step.join()
    # On the claim there is no base, which the predictor says, so nothing else kept it away.
    assert "/mnt/base" in ended[0].last, ended[0].log
