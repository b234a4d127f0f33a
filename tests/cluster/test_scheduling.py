"""Tests that the predictor of the T4 overlay is scheduled on GPU nodes only.

Requires KServe, the predictor image, a store, and permission to change a node: its status is
patched to advertise a GPU, and restored afterwards.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.api import Api, predictor_pods, wait_until
from tests.cluster.bundles import Bundles
from tests.cluster.pods import DeployResult, DeployStep
from tests.manifests.kustomize import build, get

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

GPU = "nvidia.com/gpu"


@pytest.fixture(scope="module")
def selector() -> dict[str, str]:
    """The node selector of the overlay."""
    return get(build("overlays/gke-t4"), "ServingRuntime")["spec"]["nodeSelector"]


@pytest.fixture(scope="module")
def node_without_gpu(api: Api, node: str, selector: dict[str, str]) -> str:
    """A node, in a cluster where no node matches the overlay."""
    for manifest in api.items("/api/v1/nodes"):
        labels, capacity = manifest["metadata"]["labels"], manifest["status"]["capacity"]
        if selector.items() <= labels.items() or GPU in capacity:
            pytest.skip(f"node {manifest['metadata']['name']} has a GPU")
    return node


@contextmanager
def _advertise_gpu(api: Api, node: str, selector: dict[str, str]) -> Iterator[None]:
    """Give a node a GPU, the label and the taint of a GKE node pool with T4s."""
    path = f"/api/v1/nodes/{node}"
    taints = (api.get(path) or {})["spec"].get("taints", [])
    gpu_taint = {"key": GPU, "value": "present", "effect": "NoSchedule"}
    try:
        labels = {"labels": selector}
        api.patch(path, {"metadata": labels, "spec": {"taints": [*taints, gpu_taint]}})
        api.patch(f"{path}/status", {"status": {"capacity": {GPU: "1"}}})
        yield
    finally:
        labels = {"labels": dict.fromkeys(selector)}
        api.patch(path, {"metadata": labels, "spec": {"taints": taints or None}})
        no_gpu = {"status": {"capacity": {GPU: None}, "allocatable": {GPU: None}}}
        api.patch(f"{path}/status", no_gpu)


def test_deploy_reports_an_unschedulable_pod(
    node_without_gpu: str,
    t4_deploy_step: DeployStep,
    bundles: Bundles,
    report: Callable[[str], None],
) -> None:
    result = t4_deploy_step.run(bundles.first, timeout_seconds=20.0)
    assert result.exit_code == 1, result.log
    assert "timed out after 20 s" in result.last_line
    assert "didn't match Pod's node affinity/selector" in result.last_line
    report(f"no node with a T4: {result.last_line}")


def test_predictor_is_scheduled_on_a_gpu_node(
    node_without_gpu: str,
    api: Api,
    t4_deploy_step: DeployStep,
    bundles: Bundles,
    selector: dict[str, str],
) -> None:
    """The deploy step starts before the node is tainted, because its pod tolerates no taint."""
    results: list[DeployResult] = []
    step = threading.Thread(
        target=lambda: results.append(t4_deploy_step.run(bundles.second, timeout_seconds=90.0))
    )
    namespace = t4_deploy_step.namespaces.serving
    step.start()
    try:
        wait_until("the predictor's pod exists", lambda: predictor_pods(api, namespace))
        with _advertise_gpu(api, node_without_gpu, selector):
            (pod,) = wait_until(
                "the predictor's pod has an IP address",
                lambda: [p for p in predictor_pods(api, namespace) if p["status"].get("podIP")],
            )
        assert pod["spec"]["nodeName"] == node_without_gpu
        assert pod["spec"]["containers"][0]["resources"]["limits"][GPU] == "1"
    finally:
        step.join()
    # The claim is empty, so the predictor starts and then fails on the missing base model.
    assert "/mnt/base" in results[0].last_line, results[0].log
