"""Tests of deploys and availability on a cluster: first deploy, update, failure, pod loss.

Requires KServe, the predictor image and a store. The tests depend on each other, in this order.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.cluster.api import Api, apply, is_ready, kubectl, predictor_pods, wait_until
from tests.cluster.bundles import FAILED_RULE, Bundles, digest_of
from tests.cluster.client import Client, Report, summary
from tests.cluster.pods import DeployResult, DeployStep
from tests.fixtures.artifacts import LABELS
from tests.manifests.kustomize import build, get

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

READY = "/v2/models/grocer/ready"
PRODUCTS = ["Organic Milk", "Crème 牛乳"]
V2 = {"inputs": [{"name": "product_name", "shape": [2], "datatype": "BYTES", "data": PRODUCTS}]}


@dataclass
class PodObserver:
    """Records the predictor pods of one bundle on each call."""

    api: Api
    namespace: str
    digest: str
    seen: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)

    def __call__(self) -> None:
        for pod in predictor_pods(self.api, self.namespace, self.digest):
            self.seen.add(pod["metadata"]["name"])
            if is_ready(pod):
                self.ready.add(pod["metadata"]["name"])


@dataclass(frozen=True)
class FirstDeploy:
    """The result of the first deploy, and the pod's (live, ready) statuses while it started."""

    result: DeployResult
    statuses: list[list[int]]


@pytest.fixture(scope="module")
def namespace(deploy_step: DeployStep) -> str:
    """The serving namespace."""
    return deploy_step.namespaces.serving


@pytest.fixture(scope="module")
def url(namespace: str) -> str:
    """The predictor's URL inside the cluster."""
    return f"http://grocer-predictor.{namespace}.svc"


@pytest.fixture(scope="module")
def first_deploy(
    api: Api, deploy_step: DeployStep, namespace: str, bundles: Bundles, client: Client
) -> Iterator[FirstDeploy]:
    """Deploys the first bundle, and polls its pod from the moment it has an IP address."""
    statuses: list[list[int]] = []
    threads: list[threading.Thread] = []

    def poll(address: str) -> None:
        statuses.extend(client.poll_until_ready(f"http://{address}:8080", READY, 300))

    def start_polling() -> None:
        for pod in predictor_pods(api, namespace):
            if not threads and (address := pod["status"].get("podIP")):
                threads.append(threading.Thread(target=poll, args=(address,)))
                threads[0].start()

    result = deploy_step.run(bundles.first, start_polling)
    for thread in threads:
        thread.join()
    assert result.exit_code == 0, result.log
    yield FirstDeploy(result, statuses)
    kubectl("delete", "isvc", "grocer", "-n", namespace)


def test_no_pod_runs_before_the_first_deploy(
    api: Api, deploy_step: DeployStep, namespace: str
) -> None:
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/grocer"
    wait_until(
        "KServe's controller has reconciled the InferenceService",
        lambda: (api.get(path) or {}).get("status"),
    )
    assert not predictor_pods(api, namespace)


def test_first_deploy_succeeds(
    first_deploy: FirstDeploy, bundles: Bundles, api: Api, namespace: str, report: Report
) -> None:
    products = [prediction["product_name"] for prediction in first_deploy.result.output]
    assert products == ["Organic Milk", "Banana Bread"]
    (pod,) = predictor_pods(api, namespace, digest_of(bundles.first))
    assert is_ready(pod)
    labels = (api.get(f"/api/v1/namespaces/{namespace}") or {})["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    report(f"first deploy until the smoke test passed: {first_deploy.result.seconds:.1f} s")


def test_pod_is_live_before_it_is_ready(first_deploy: FirstDeploy, report: Report) -> None:
    statuses = first_deploy.statuses
    assert [200, 503] in statuses, statuses
    assert statuses[-1] == [200, 200]
    ready = [status for _, status in statuses]
    assert ready.index(200) == len(ready) - 1
    report(f"live but not ready: {statuses.count([200, 503])} of {len(statuses)} polls")


def test_v1_and_v2_requests(
    first_deploy: FirstDeploy, client: Client, url: str, bundles: Bundles
) -> None:
    (v1_status, v1, headers), (v2_status, v2, _), (ready, _, _) = client.request(
        (f"{url}/v1/models/grocer:predict", {"instances": PRODUCTS}),
        (f"{url}/v2/models/grocer/infer", V2),
        (f"{url}{READY}", None),
    )
    assert (v1_status, v2_status, ready) == (200, 200, 200)
    assert headers["x-model-digest"] == digest_of(bundles.first)
    departments = [prediction["department"] for prediction in v1["predictions"]]
    assert set(departments) <= set(LABELS)
    outputs = {output["name"]: output["data"] for output in v2["outputs"]}
    assert outputs["department"][:2] == departments


def test_update_fails_no_request(
    first_deploy: FirstDeploy,
    client: Client,
    deploy_step: DeployStep,
    url: str,
    bundles: Bundles,
    report: Report,
) -> None:
    with client.load(url) as load:
        result = deploy_step.run(bundles.second)
    assert result.exit_code == 0, result.log
    report(f"updated in {result.seconds:.1f} s; {summary(load)}")
    assert load["failed"] == 0, load["failures"]
    assert list(load["digests"]) == [digest_of(bundles.first), digest_of(bundles.second)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("failed_gate", FAILED_RULE),
        ("missing_base", "base.source=tiny"),
        ("unsigned", "is not signed"),
    ],
)
def test_invalid_bundle_is_rolled_back(
    name: str,
    reason: str,
    first_deploy: FirstDeploy,
    api: Api,
    client: Client,
    deploy_step: DeployStep,
    namespace: str,
    url: str,
    bundles: Bundles,
    report: Report,
) -> None:
    """Its pods never become ready, and no request to the previous bundle fails."""
    uri = getattr(bundles, name)
    observer = PodObserver(api, namespace, digest_of(uri))
    with client.load(url) as load:
        result = deploy_step.run(uri, observer)
    assert result.exit_code == 1, result.log
    assert reason in result.last_line
    assert result.last_line.endswith(f"rolled back to {digest_of(bundles.second)[:12]}")
    assert observer.seen
    assert not observer.ready
    report(f"{name}: rolled back after {result.seconds:.1f} s; {summary(load)}")
    report(f"  {result.last_line}")
    assert load["failed"] == 0, load["failures"]
    assert list(load["digests"]) == [digest_of(bundles.second)]


def test_killed_pod_is_replaced(
    first_deploy: FirstDeploy,
    api: Api,
    client: Client,
    namespace: str,
    url: str,
    bundles: Bundles,
    report: Report,
) -> None:
    with client.load(url) as load:
        _delete_one_pod(api, namespace, "--grace-period=0", "--force")
        _wait_for_pods(api, namespace, 1)
    report(f"only pod killed: {summary(load)}")
    assert list(load["digests"]) == [digest_of(bundles.second)]
    assert load["failed"] < load["sent"]
    request = (f"{url}/v1/models/grocer:predict", {"instances": PRODUCTS})
    ((status, _, _),) = client.request(request)
    assert status == 200


def test_deleting_one_of_two_pods_fails_no_request(
    first_deploy: FirstDeploy,
    api: Api,
    client: Client,
    deploy_step: DeployStep,
    namespace: str,
    url: str,
    report: Report,
) -> None:
    service = deploy_step.namespaces.rename(get(build("overlays/kind"), "InferenceService"))
    service["spec"]["predictor"]["minReplicas"] = 2
    apply([service])
    _wait_for_pods(api, namespace, 2)
    with client.load(url) as load:
        _delete_one_pod(api, namespace)
        _wait_for_pods(api, namespace, 2)
    report(f"one pod of two deleted: {summary(load)}")
    assert load["failed"] == 0, load["failures"]


def _delete_one_pod(api: Api, namespace: str, *options: str) -> None:
    name = predictor_pods(api, namespace)[0]["metadata"]["name"]
    kubectl("delete", "pod", name, "-n", namespace, "--wait=false", *options)


def _wait_for_pods(api: Api, namespace: str, count: int) -> None:
    """Wait until exactly `count` pods exist and all are ready."""

    def check() -> bool:
        pods = predictor_pods(api, namespace)
        return len(pods) == count and all(is_ready(pod) for pod in pods)

    wait_until(f"{count} pods are ready", check, timeout=300)
