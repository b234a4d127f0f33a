"""Protects what the project is for on a cluster: bundles served, replaced, refused, given back.

Needs KServe, the predictor's image and a store. The tests build on one another, in this order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster.api import Api, applied, kubectl, until
from tests.cluster.bundles import Bundles, digest_of
from tests.cluster.client import Client
from tests.cluster.pods import Ended, Steps
from tests.fixtures.artifacts import LABELS
from tests.manifests.kustomize import Object, build, one

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

READY = "/v2/models/grocer/ready"
NAMES = ["Organic Milk", "Crème 牛乳"]
V2 = {"inputs": [{"name": "product_name", "shape": [2], "datatype": "BYTES", "data": NAMES}]}


def _pods(api: Api, steps: Steps, digest: str = "") -> list[Object]:
    """The predictor's pods that are not on their way out; of that bundle, if one is named."""
    path = f"/api/v1/namespaces/{steps.namespaces.serving}/pods"
    found = api.items(path, labelSelector="serving.kserve.io/inferenceservice=grocer")
    there = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    return [pod for pod in there if digest in str(pod["spec"]["containers"])]


def _ready(pod: Object) -> bool:
    ready = {"type": "Ready", "status": "True"}.items()
    return any(ready <= c.items() for c in pod["status"].get("conditions", []))


@dataclass
class Watched:
    """The predictor's pods of one bundle, while a deploy goes on."""

    api: Api
    steps: Steps
    digest: str
    seen: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)

    def __call__(self) -> None:
        for pod in _pods(self.api, self.steps, self.digest):
            self.seen.add(pod["metadata"]["name"])
            if _ready(pod):
                self.ready.add(pod["metadata"]["name"])


@dataclass(frozen=True)
class First:
    """How the first deploy went, and what the pod answered until it was ready."""

    ended: Ended
    samples: list[list[int]]


@pytest.fixture(scope="module")
def url(installed: Steps) -> str:
    """Where clients in the cluster ask."""
    return f"http://grocer-predictor.{installed.namespaces.serving}.svc"


@pytest.fixture(scope="module")
def first(api: Api, installed: Steps, bundles: Bundles, client: Client) -> Iterator[First]:
    """The first bundle of all, deployed."""
    samples: list[list[int]] = []
    asking: list[threading.Thread] = []

    def ask(address: str) -> None:
        samples.extend(client.samples(f"http://{address}:8080", READY, 300))

    def look() -> None:
        """Ask the pod itself, from when it has an address."""
        for pod in _pods(api, installed):
            if not asking and (address := pod["status"].get("podIP")):
                asking.append(threading.Thread(target=ask, args=(address,)))
                asking[0].start()

    ended = installed.deploy(bundles.first, look)
    for thread in asking:
        thread.join()
    assert ended.code == 0, ended.log
    yield First(ended, samples)
    kubectl("delete", "isvc", "grocer", "-n", installed.namespaces.serving)


def test_nothing_runs_before_the_first_deploy(api: Api, installed: Steps) -> None:
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/{installed.namespaces.serving}"

    def looked() -> bool:
        service = api.get(f"{path}/inferenceservices/grocer")
        return bool(service and service.get("status"))

    until("KServe's controller has looked at the InferenceService", looked)
    assert not _pods(api, installed)


def test_a_bundle_from_the_store_comes_up(
    first: First, bundles: Bundles, api: Api, installed: Steps, figure: Callable[[str], None]
) -> None:
    assert [answer["product_name"] for answer in first.ended.answers] == [
        "Organic Milk",
        "Banana Bread",
    ]
    (pod,) = _pods(api, installed, digest_of(bundles.first))
    namespace = api.get(f"/api/v1/namespaces/{installed.namespaces.serving}") or {}
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert _ready(pod)
    figure(f"first deploy, from the step's pod made to the answers: {first.ended.seconds:.1f} s")


def test_it_is_live_but_not_ready_while_it_loads(
    first: First, figure: Callable[[str], None]
) -> None:
    assert [200, 503] in first.samples, first.samples
    assert first.samples[-1] == [200, 200]
    ready = [status for _, status in first.samples]
    assert ready.index(200) == len(ready) - 1
    loading = first.samples.count([200, 503])
    figure(f"live and not ready yet: {loading} of {len(first.samples)} times that it was asked")


def test_it_answers_v1_and_v2(first: First, client: Client, url: str, bundles: Bundles) -> None:
    asked: list[tuple[str, Any]] = [
        (f"{url}/v1/models/grocer:predict", {"instances": NAMES}),
        (f"{url}/v2/models/grocer/infer", V2),
        (f"{url}{READY}", None),
    ]
    (status, v1, headers), (status2, v2, _), (ready, _, _) = client.ask(*asked)
    assert (status, status2, ready) == (200, 200, 200)
    assert headers["x-model-digest"] == digest_of(bundles.first)
    departments = [each["department"] for each in v1["predictions"]]
    assert set(departments) <= set(LABELS)
    outputs = {output["name"]: output["data"] for output in v2["outputs"]}
    assert outputs["department"][:2] == departments


def test_another_bundle_replaces_it_without_a_failed_request(
    first: First,
    client: Client,
    installed: Steps,
    url: str,
    bundles: Bundles,
    figure: Callable[[str], None],
) -> None:
    with client.hammering(url) as found:
        ended = installed.deploy(bundles.second)
    assert ended.code == 0, ended.log
    figure(f"replaced in {ended.seconds:.1f} s; {_told(found)}")
    assert found["failed"] == 0, found["failures"]
    assert found["digests"] == [digest_of(bundles.first), digest_of(bundles.second)]


@pytest.mark.parametrize(
    ("bundle", "why"),
    [
        ("refused", "the gate said no, so this adapter is not served: Test accuracy is too low."),
        ("baseless", "base.source=tiny: no such directory"),
    ],
)
def test_a_bundle_that_must_not_serve_never_does(
    bundle: str,
    why: str,
    first: First,
    api: Api,
    client: Client,
    installed: Steps,
    url: str,
    bundles: Bundles,
    figure: Callable[[str], None],
) -> None:
    """Deploy says why, and the former one serves on."""
    address = getattr(bundles, bundle)
    watched = Watched(api, installed, digest_of(address))
    with client.hammering(url) as found:
        ended = installed.deploy(address, look=watched)
    assert ended.code == 1, ended.log
    assert why in ended.last
    assert ended.last.endswith(f"rolled back to {digest_of(bundles.second)[:12]}")
    assert watched.seen
    assert not watched.ready
    figure(f"{bundle} bundle given up and undone in {ended.seconds:.1f} s; {_told(found)}")
    figure(f"  it said: {ended.last}")
    assert found["failed"] == 0, found["failures"]
    assert found["digests"] == [digest_of(bundles.second)]


def test_the_only_pod_is_killed_and_comes_back_by_itself(
    first: First,
    api: Api,
    client: Client,
    installed: Steps,
    url: str,
    bundles: Bundles,
    figure: Callable[[str], None],
) -> None:
    with client.hammering(url) as found:
        _kill_one(api, installed, "--grace-period=0", "--force")
        _all_ready(api, installed, 1)
    figure(f"the only pod killed: {_told(found)}")
    assert found["digests"] == [digest_of(bundles.second)]
    assert found["failed"] < found["sent"]
    (status, _, _), *_ = client.ask((f"{url}/v1/models/grocer:predict", {"instances": NAMES}))
    assert status == 200


def test_one_pod_of_two_is_drained_without_a_failed_request(
    first: First,
    api: Api,
    client: Client,
    installed: Steps,
    url: str,
    figure: Callable[[str], None],
) -> None:
    service = installed.namespaces.renamed(one(build("overlays/kind"), "InferenceService"))
    service["spec"]["predictor"]["minReplicas"] = 2
    applied([service])
    _all_ready(api, installed, 2)
    with client.hammering(url) as found:
        _kill_one(api, installed)
        _all_ready(api, installed, 2)
    figure(f"one pod of two deleted: {_told(found)}")
    assert found["failed"] == 0, found["failures"]


def _kill_one(api: Api, steps: Steps, *more: str) -> None:
    name = _pods(api, steps)[0]["metadata"]["name"]
    kubectl("delete", "pod", name, "-n", steps.namespaces.serving, "--wait=false", *more)


def _all_ready(api: Api, steps: Steps, number: int) -> None:
    def looked() -> bool:
        pods = _pods(api, steps)
        return len(pods) == number and all(_ready(pod) for pod in pods)

    until(f"{number} pods are ready, and no other is left", looked, seconds=300)


def _told(found: dict[str, Any]) -> str:
    return (
        f"{found['sent']} requests in {found['seconds']} s, {found['failed']} failed, "
        f"longest time without an answer {found['longest_gap']} s"
    )
