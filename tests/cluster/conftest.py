"""Fixtures for tests on a real cluster; a test is skipped if the cluster lacks what it needs.

    KUBECONFIG=... pytest -m cluster tests/cluster

The tests run in temporary namespaces of the cluster of KUBECONFIG. Environment variables:

    GROCER_TEST_SERVE_IMAGE   predictor image that is on the nodes or can be pulled
    GROCER_TEST_HOST          address of this machine that pods can reach, to run an S3 server; or
    GROCER_TEST_S3_ENDPOINT   S3 endpoint that this machine and the pods reach, with its
                              AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION
    GROCER_TEST_S3_STORE      URI prefix for bundles (default: s3://grocer-test/bundles)
    GROCER_TEST_KFP           URL of Kubeflow Pipelines, installed in the namespace kubeflow with
                              manifests/base/pipeline
    GROCER_TEST_IMAGES        kustomization.yaml with the pipeline's images, from `make images`
    GROCER_TEST_KEEP          keep the namespaces for inspection
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import boto3
import httpx
import pytest

from tests.cluster import installation
from tests.cluster.api import Api, allow_store, apply, is_ready, kubectl, kubectl_proxy, run_kubectl
from tests.cluster.bundles import Bundles, digest_of, upload_bundles
from tests.cluster.client import Client, Gateway, Report, start_client
from tests.cluster.installation import Namespaces, Store
from tests.cluster.pods import DeployStep
from tests.fixtures.object_store import object_store
from tests.fixtures.signing_keys import make_key

MEASUREMENTS = pytest.StashKey[list[str]]()
_CONTROLLER = "/apis/apps/v1/namespaces/kserve/deployments/kserve-controller-manager"
_GATEWAY = "/api/v1/namespaces/kserve/services/kserve-ingress-gateway"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MEASUREMENTS] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the measurements, which no test asserts."""
    if config.stash[MEASUREMENTS]:
        terminalreporter.section("measurements")
    for line in config.stash[MEASUREMENTS]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """Adds a line to the measurements in the terminal summary."""
    return pytestconfig.stash[MEASUREMENTS].append


def _environment(name: str, purpose: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.skip(f"{name} is not set ({purpose})")
    return value


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """A client of the cluster's API."""
    _environment("KUBECONFIG", "the cluster")
    if not shutil.which("kubectl"):
        pytest.skip("kubectl not on PATH")
    result = run_kubectl("get", "--raw", "/readyz", "--request-timeout=10s")
    if result.returncode:
        pytest.skip(f"the cluster of KUBECONFIG is unreachable: {result.stderr.strip()}")
    with kubectl_proxy() as api:
        yield api


@pytest.fixture(scope="session")
def new_namespaces(api: Api) -> Iterator[Callable[[], Namespaces]]:
    """Returns unique namespace names; deletes the namespaces at the end of the session."""
    created: list[Namespaces] = []

    def create() -> Namespaces:
        name = f"grocer-test-{secrets.token_hex(3)}"
        created.append(Namespaces(name, f"{name}-steps"))
        return created[-1]

    yield create
    if os.environ.get("GROCER_TEST_KEEP"):
        return
    for names in created:
        kubectl("delete", "pv", names.serving, "--ignore-not-found", "--wait=false")
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            kubectl("delete", kind, names.policy, "--ignore-not-found")
        both = (names.serving, names.steps)
        kubectl("delete", "namespace", *both, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="session")
def namespaces(new_namespaces: Callable[[], Namespaces]) -> Namespaces:
    """Namespaces with the accounts, RBAC and network policies of manifests/."""
    names = new_namespaces()
    apply(installation.base_objects(names))
    return names


@pytest.fixture(scope="session")
def node(api: Api) -> str:
    """The name of a schedulable node."""
    for manifest in api.items("/api/v1/nodes"):
        if is_ready(manifest) and not manifest["spec"].get("taints"):
            return str(manifest["metadata"]["name"])
    pytest.skip("no ready node without taints")


@pytest.fixture(scope="session")
def kserve(api: Api, node: str) -> None:
    """Requires KServe with a running controller."""
    if not api.serves("serving.kserve.io/v1beta1", "InferenceService"):
        pytest.skip("KServe is not installed")
    controller = api.get(_CONTROLLER)
    if not controller or not controller["status"].get("availableReplicas"):
        pytest.skip("KServe's controller is not available")


@pytest.fixture(scope="session")
def image(node: str) -> str:
    """The predictor image."""
    return _environment("GROCER_TEST_SERVE_IMAGE", "a grocer-serve image that the nodes have")


@pytest.fixture(scope="session")
def kfp_host() -> str:
    """The URL of a healthy Kubeflow Pipelines API."""
    host = _environment("GROCER_TEST_KFP", "URL of Kubeflow Pipelines")
    try:
        httpx.get(f"{host}/apis/v2beta1/healthz", timeout=10, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        pytest.skip(f"GROCER_TEST_KFP={host} is unreachable: {error}")
    return host


@pytest.fixture(scope="session")
def images_file() -> Path:
    """The kustomization with the images of the pipeline's steps."""
    return Path(_environment("GROCER_TEST_IMAGES", "kustomization with the pipeline's images"))


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """An object store that pods and this process reach."""
    endpoint, host = os.environ.get("GROCER_TEST_S3_ENDPOINT"), os.environ.get("GROCER_TEST_HOST")
    uri = os.environ.get("GROCER_TEST_S3_STORE", "s3://grocer-test/bundles")
    with pytest.MonkeyPatch.context() as patch:
        if endpoint:
            key = _environment("AWS_ACCESS_KEY_ID", "credentials of the object store")
            secret = _environment("AWS_SECRET_ACCESS_KEY", "credentials of the object store")
            region = os.environ.get("AWS_REGION", "us-east-1")
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            yield Store(endpoint, uri, key, secret, region)
            return
        if not host:
            pytest.skip("no object store: set GROCER_TEST_S3_ENDPOINT or GROCER_TEST_HOST")
        with object_store(host) as endpoint:
            store = Store(endpoint, uri, "test", "testtest", "us-east-1")
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            patch.setenv("AWS_ACCESS_KEY_ID", store.key)
            patch.setenv("AWS_SECRET_ACCESS_KEY", store.secret)
            patch.setenv("AWS_REGION", store.region)
            bucket = uri.removeprefix("s3://").partition("/")[0]
            boto3.client("s3").create_bucket(Bucket=bucket)
            yield store


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The private key that signs the bundles, and the public key that the predictors trust."""
    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def bundles(
    store: Store,
    base: Path,
    signing_key: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundles:
    """Bundles in the store, outside the prefix where deploy publishes them."""
    return upload_bundles(store, tmp_path_factory.mktemp("bundles"), base, signing_key[0])


@pytest.fixture(scope="session")
def client(api: Api, namespaces: Namespaces, image: str) -> Client:
    """A running client pod."""
    return start_client(namespaces.steps, image)


Install = Callable[..., DeployStep]


@pytest.fixture(scope="session")
def install(
    api: Api, kserve: None, image: str, store: Store, signing_key: tuple[Path, Path]
) -> Install:
    """Installs an overlay in namespaces that have the accounts, and returns its deploy step.

    The arguments after the namespaces and the overlay are components, and faults as in `faulty`.
    """

    def install(
        names: Namespaces, overlay: str, *components: str, faults: Mapping[str, str] = {}
    ) -> DeployStep:
        objects = installation.kserve_objects(overlay, names, image, *components)
        objects = installation.faulty(objects, faults) if faults else objects
        # The ClusterStorageContainer is cluster-scoped: do not replace an existing one.
        exists = api.get("/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers/grocer")
        apply([o for o in objects if not exists or o["kind"] != "ClusterStorageContainer"])
        apply([installation.trust(names.serving, signing_key[1])])
        for namespace in (names.serving, names.steps):
            apply(installation.store_access(namespace, store))
        step = DeployStep(api, names, image, f"{store.uri}/published")
        allow_store(names.serving, step.store)
        return step

    return install


@pytest.fixture(scope="session")
def deploy_step(install: Install, namespaces: Namespaces) -> DeployStep:
    """The deploy step for the overlay `kind`, in which no bundle is deployed yet."""
    return install(namespaces, "overlays/kind")


@pytest.fixture(scope="session")
def t4_deploy_step(install: Install, new_namespaces: Callable[[], Namespaces]) -> DeployStep:
    """The deploy step for the overlay `gke-t4`, in separate namespaces."""
    names = new_namespaces()
    apply(installation.base_objects(names))
    apply(installation.empty_weights_volume(names))
    return install(names, "overlays/gke-t4")


@pytest.fixture(scope="session")
def new_canary_step(
    api: Api, install: Install, new_namespaces: Callable[[], Namespaces]
) -> Callable[..., DeployStep]:
    """Installs the overlay `kind` with the component `canary`.

    The arguments are further components, and faults as in `faulty`.
    """
    if not api.get(_GATEWAY):
        pytest.skip("KServe's Gateway is not installed (kind/gateway.yaml)")

    def install_canary(*components: str, faults: Mapping[str, str] = {}) -> DeployStep:
        names = new_namespaces()
        apply(installation.base_objects(names))
        return install(names, "overlays/kind", "canary", *components, faults=faults)

    return install_canary


@pytest.fixture(scope="module")
def gateway(api: Api, step: DeployStep) -> Gateway:
    """A running client pod for the gateway, in the namespaces of the module's fixture `step`."""
    client = start_client(step.namespaces.steps, step.image)
    return Gateway(client, api, step.namespaces.serving)


@pytest.fixture(scope="module")
def stable(step: DeployStep, bundles: Bundles) -> Iterator[str]:
    """Deploys the first bundle; its digest."""
    result = step.run(bundles.first)
    assert result.exit_code == 0, result.log
    yield digest_of(bundles.first)
    kubectl("delete", "isvc", "grocer", "-n", step.namespaces.serving)
