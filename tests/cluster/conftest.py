"""What the tests of a cluster need, found or told by name when it is missing.

    KUBECONFIG=... pytest -m cluster tests/cluster

They run on whatever cluster the kubeconfig names, in namespaces of their own that go away at the
end; a cluster with only a part of what they need has that part tested. Variables:

    GROCER_TEST_SERVE_IMAGE   predictor image that the nodes have or can pull
    GROCER_TEST_HOST          address of this machine that pods reach: a store is run there, or
    GROCER_TEST_S3_ENDPOINT   one that this machine and the pods reach by the same address, with
                              AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION of it, and
    GROCER_TEST_S3_STORE      where in it bundles may be put (default s3://grocer-test/bundles)
    GROCER_TEST_KFP           address of Kubeflow Pipelines, installed in the namespace kubeflow
                              beside manifests/base/pipeline; its images are
    GROCER_TEST_IMAGES        a kustomization.yaml that names them, as `make images` writes it
    GROCER_TEST_KEEP          keep the namespaces, to look at them
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import httpx
import pytest

from tests.cluster import release
from tests.cluster.api import Api, applied, kubectl, proxied, run, until
from tests.cluster.bundles import Bundles, upload
from tests.cluster.client import NAME, Client, client_pod
from tests.cluster.pods import Steps
from tests.cluster.release import Namespaces, Store
from tests.fixtures.object_store import object_store

FIGURES = pytest.StashKey[list[str]]()
Figure = Callable[[str], None]
_CONTROLLER = "/apis/apps/v1/namespaces/kserve/deployments/kserve-controller-manager"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was measured on this cluster; nothing is asserted of it."""
    if config.stash[FIGURES]:
        terminalreporter.section("seen on the cluster")
    for line in config.stash[FIGURES]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def figure(pytestconfig: pytest.Config) -> Figure:
    """Keep a line for the end."""
    return pytestconfig.stash[FIGURES].append


def _setting(name: str, what: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.skip(f"{name} is not set; it is to name {what}")
    return value


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """The cluster's API."""
    _setting("KUBECONFIG", "the cluster")
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl on PATH")
    answer = run("get", "--raw", "/readyz", "--request-timeout=10s")
    if answer.returncode:
        pytest.skip(f"the cluster of KUBECONFIG does not answer: {answer.stderr.strip()}")
    with proxied() as found:
        yield found


@pytest.fixture(scope="session")
def scratch(api: Api) -> Iterator[Callable[[], Namespaces]]:
    """Makes a pair of names for namespaces; they are deleted at the end."""
    made: list[Namespaces] = []

    def make() -> Namespaces:
        name = f"grocer-test-{secrets.token_hex(3)}"
        made.append(Namespaces(name, f"{name}-steps"))
        return made[-1]

    yield make
    if os.environ.get("GROCER_TEST_KEEP"):
        return
    for names in made:
        kubectl("delete", "pv", names.serving, "--ignore-not-found", "--wait=false")
        both = (names.serving, names.steps)
        kubectl("delete", "namespace", *both, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="session")
def ground(scratch: Callable[[], Namespaces]) -> Namespaces:
    """Namespaces with the accounts, rights and policies of manifests/, and nothing in them."""
    names = scratch()
    applied(release.ground(names))
    return names


@pytest.fixture(scope="session")
def node(api: Api) -> str:
    """A node that takes pods."""
    for each in api.items("/api/v1/nodes"):
        ready = {"type": "Ready", "status": "True"}.items()
        taints = each["spec"].get("taints", [])
        if any(ready <= c.items() for c in each["status"]["conditions"]) and not taints:
            return str(each["metadata"]["name"])
    pytest.skip("no node is ready and without a taint")


@pytest.fixture(scope="session")
def kserve(api: Api, node: str) -> None:
    """KServe, its controller up."""
    if not api.serves("serving.kserve.io/v1beta1", "InferenceService"):
        pytest.skip("KServe is not installed: no InferenceService in serving.kserve.io/v1beta1")
    controller = api.get(_CONTROLLER)
    if not controller or not controller["status"].get("availableReplicas"):
        pytest.skip("KServe's controller kserve/kserve-controller-manager is not available")


@pytest.fixture(scope="session")
def image(node: str) -> str:
    """The predictor's image."""
    return _setting("GROCER_TEST_SERVE_IMAGE", "a grocer-serve image that the nodes have")


@pytest.fixture(scope="session")
def kfp() -> str:
    """The address of Kubeflow Pipelines, which answers."""
    host = _setting("GROCER_TEST_KFP", "Kubeflow Pipelines")
    try:
        httpx.get(f"{host}/apis/v2beta1/healthz", timeout=10, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        pytest.skip(f"Kubeflow Pipelines does not answer at GROCER_TEST_KFP={host}: {error}")
    return host


@pytest.fixture(scope="session")
def images() -> Path:
    """The file that names the images of the pipeline's steps."""
    return Path(_setting("GROCER_TEST_IMAGES", "the file that names the pipeline's images"))


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """An object store that pods and this process reach."""
    endpoint, host = os.environ.get("GROCER_TEST_S3_ENDPOINT"), os.environ.get("GROCER_TEST_HOST")
    address = os.environ.get("GROCER_TEST_S3_STORE", "s3://grocer-test/bundles")
    with pytest.MonkeyPatch.context() as patch:
        if endpoint:
            key = _setting("AWS_ACCESS_KEY_ID", "who asks the store")
            secret = _setting("AWS_SECRET_ACCESS_KEY", "the key's secret")
            made = Store(endpoint, address, key, secret, os.environ.get("AWS_REGION", "us-east-1"))
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            yield made
            return
        if not host:
            pytest.skip("no object store: set GROCER_TEST_S3_ENDPOINT, or GROCER_TEST_HOST")
        with object_store(host) as endpoint:
            made = Store(endpoint, address, "test", "testtest", "us-east-1")
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            patch.setenv("AWS_ACCESS_KEY_ID", made.key)
            patch.setenv("AWS_SECRET_ACCESS_KEY", made.secret)
            patch.setenv("AWS_REGION", made.region)
            bucket = address.removeprefix("s3://").partition("/")[0]
            boto3.client("s3").create_bucket(Bucket=bucket)
            yield made


@pytest.fixture(scope="session")
def bundles(store: Store, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Bundles that lie in the store, beside where they are published."""
    return upload(store, tmp_path_factory.mktemp("bundles"), base)


@pytest.fixture(scope="session")
def client(api: Api, ground: Namespaces, image: str) -> Client:
    """A pod that asks the predictor."""
    return _client(api, ground, image)


@pytest.fixture(scope="session")
def installed(api: Api, kserve: None, ground: Namespaces, image: str, store: Store) -> Steps:
    """The overlay `kind` in the session's namespaces, with nothing deployed; its deploy step."""
    return _installed("overlays/kind", api, ground, image, store)


@pytest.fixture(scope="session")
def installed_on_t4(
    api: Api,
    kserve: None,
    scratch: Callable[[], Namespaces],
    image: str,
    store: Store,
) -> Steps:
    """The overlay `gke-t4`, in namespaces of its own."""
    names = scratch()
    applied(release.ground(names))
    applied(release.t4_claim(names))
    return _installed("overlays/gke-t4", api, names, image, store)


def _installed(overlay: str, api: Api, names: Namespaces, image: str, store: Store) -> Steps:
    objects = release.served(overlay, names, image)
    kept = api.get("/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers/grocer")
    applied([o for o in objects if not kept or o["kind"] != "ClusterStorageContainer"])
    applied(release.access(names.serving, store) + release.access(names.steps, store))
    return Steps(api, names, image, f"{store.address}/published")


def _client(api: Api, names: Namespaces, image: str) -> Client:
    applied([client_pod(names.steps, image)])
    path = f"/api/v1/namespaces/{names.steps}/pods/{NAME}"
    until("the client's pod runs", lambda: (api.get(path) or {})["status"]["phase"] == "Running")
    return Client(names.steps)
