"""Protects what `grocer doctor` says of a cluster, part by part, over real HTTP."""

import json
import os
import socket

import pytest
from kubernetes.config import kube_config

from pipelines.doctor import report as doctor
from pipelines.doctor.cluster import CONTROLLER, GROUP, cluster, kubeflow
from pipelines.kubeflow.client import Server
from tests.fixtures import kubeflow_server as stand_in
from tests.fixtures import kubernetes_api
from tests.fixtures.kubeflow_server import Kubeflow
from tests.fixtures.kubernetes_api import Api, refusal

GROUP_PATH = f"/apis/{GROUP}"
IMAGE = {"name": "manager", "image": "registry:5000/kserve/kserve-controller:v0.20.0"}
PROXY = {"name": "kube-rbac-proxy", "image": "proxy:1"}
WELL = {
    "/version": (200, {"major": "1", "minor": "36+", "gitVersion": "v1.36.0"}),
    GROUP_PATH: (200, {"versions": [{"version": "v1alpha1"}, {"version": "v1beta1"}]}),
    f"{GROUP_PATH}/v1alpha1": (200, {"resources": [{"name": "servingruntimes"}]}),
    f"{GROUP_PATH}/v1beta1": (200, {"resources": [{"name": "inferenceservices"}]}),
    CONTROLLER: (
        200,
        {
            "spec": {"template": {"spec": {"containers": [PROXY, IMAGE]}}},
            "status": {"availableReplicas": 1},
        },
    ),
}


class Answer(kubernetes_api._Answer):
    """The API of the other tests, and what a doctor asks beside it."""

    def do_GET(self):  # noqa: N802
        if self.path in self.server.more:
            self._send(*self.server.more[self.path])
        else:
            super().do_GET()


@pytest.fixture(scope="module")
def server():
    with Api({}) as made:
        made.RequestHandlerClass = Answer
        yield made


@pytest.fixture
def api(server, monkeypatch, tmp_path):
    """A cluster that is well, where KUBECONFIG leads; a test may change what it says."""
    server.more = dict(WELL)
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return server


def seen():
    """State and text of each finding, by what it is of."""
    found = cluster()
    assert all(each.next for each in found if each.state == "lacking")
    return {each.what: (each.state, each.found) for each in found}


def test_a_cluster_with_kserve(api):
    assert seen() == {
        "Kubernetes": ("ok", "context x, v1.36.0"),
        "KServe": ("ok", "CRDs of serving.kserve.io in v1alpha1, v1beta1"),
        "KServe's controller": ("ok", "available, kserve-controller:v0.20.0"),
    }


def test_an_old_kubernetes(api):
    api.more["/version"] = 200, {"major": "1", "minor": "31", "gitVersion": "v1.31.9"}
    found = seen()
    assert found["Kubernetes"] == ("lacking", "context x, v1.31.9")
    assert found["KServe"] == ("lacking", "not looked for without a cluster")
    assert "1.32" in cluster()[0].next


def test_a_cluster_without_kserve(api):
    del api.more[GROUP_PATH]
    found = seen()
    assert found["Kubernetes"][0] == "ok"
    assert found["KServe"] == ("lacking", "not installed: the cluster knows no serving.kserve.io")


def test_a_kserve_of_other_versions(api):
    api.more[GROUP_PATH] = 200, {"versions": [{"version": "v1alpha1"}]}
    state, text = seen()["KServe"]
    assert state == "lacking"
    assert text.endswith("without v1beta1 of inferenceservices")


def test_a_controller_that_is_not_there_or_does_not_run(api):
    _, told = WELL[CONTROLLER]
    api.more[CONTROLLER] = 200, {**told, "status": {"replicas": 1}}
    state, text = seen()["KServe's controller"]
    assert (state, text) == ("lacking", "no pod of it is available, kserve-controller:v0.20.0")
    assert cluster()[-1].next == "kubectl -n kserve logs deployment/kserve-controller-manager"
    api.more[CONTROLLER] = 404, refusal("not found")
    assert seen()["KServe's controller"] == ("lacking", "none in the namespace kserve")


def test_a_controller_that_may_not_be_seen_is_no_lack(api):
    api.more[CONTROLLER] = 403, refusal("deployments is forbidden")
    assert seen()["KServe's controller"][0] == "not needed here"


@pytest.mark.parametrize("path", ["/version", GROUP_PATH, f"{GROUP_PATH}/v1beta1"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (refusal("no such token"), "no such token"),
        ("<html>", "Unauthorized"),
        ("[]", "Unauthorized"),
    ],
)
def test_a_refusal_is_told_with_its_message(api, path, body, said):
    api.more[path] = 401, body
    what = "Kubernetes" if path == "/version" else "KServe"
    assert seen()[what] == ("lacking", f"refused (401): {said}")


def test_nobody_there(monkeypatch, tmp_path):
    with Api({}) as gone:
        monkeypatch.setenv("KUBECONFIG", str(gone.kubeconfig(tmp_path / "config")))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert seen()["Kubernetes"] == ("lacking", f"no answer at {gone.url}: Connection refused")


def test_a_cluster_that_is_silent_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with Api({}) as gone:
        config = gone.kubeconfig(tmp_path / "config")
    with socket.create_server(("127.0.0.1", gone.server_port)):  # accepts, and says nothing
        monkeypatch.setenv("KUBECONFIG", str(config))
        assert seen()["Kubernetes"] == ("lacking", "no answer within 0.2 s")


def test_a_kubeconfig_that_does_not_serve(monkeypatch, tmp_path):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    state, text = seen()["Kubernetes"]
    assert state == "lacking"
    assert text.startswith(f"{tmp_path / 'absent'} does not serve: ")


def test_no_kubeconfig_at_all_is_no_lack(monkeypatch, tmp_path):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert {state for state, _ in seen().values()} == {"not needed here"}


def test_kubeflow_with_its_version(monkeypatch):
    told = {"commit_sha": "0", "tag_name": "2.17.0", "multi_user": True}
    health = ("GET", "/healthz", lambda server, query, body: (told,))
    monkeypatch.setattr(stand_in, "ROUTES", [health])
    with Kubeflow() as server:
        (found,) = kubeflow(Server(host=server.url), False)
    assert found.state == "ok"
    assert found.found == (f"2.17.0, API v2beta1 at {server.url}, shared by several: --namespace")


def test_kubeflow_where_the_environment_names_it(monkeypatch):
    with Kubeflow() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        (found,) = kubeflow(Server(), False)
    assert (found.state, found.needed) == ("ok", False)
    assert found.found.startswith("version not told, API v2beta1 at ")


def test_kubeflow_behind_the_cluster(api, monkeypatch):
    # kfp's client takes the variable as it was when the Kubernetes client was imported.
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", os.environ["KUBECONFIG"])
    path = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy//apis/v2beta1/healthz"
    api.more[path] = 200, {"tag_name": "2.17.0"}
    (found,) = kubeflow(Server(), True)
    assert found.state == "ok"
    del api.more[path]
    (found,) = kubeflow(Server(), True)
    assert (found.state, found.needed) == ("lacking", False)
    assert "refused (404)" in found.found


def test_a_kubeflow_that_wants_a_token_is_asked_once(monkeypatch):
    monkeypatch.delenv("KF_PIPELINES_TOKEN", raising=False)
    with Kubeflow(token="secret") as server:
        (found,) = kubeflow(Server(host=server.url), False)
        assert (found.state, found.needed) == ("lacking", True)
        assert found.found == f"refused (401) at {server.url}: no token"
        assert found.next.startswith("put a token into KF_PIPELINES_TOKEN, or: kubectl ")
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret")
        (found,) = kubeflow(Server(host=server.url), False)
        assert found.state == "ok"


def test_no_kubeflow_is_a_lack_only_where_one_was_named():
    (found,) = kubeflow(Server(host="http://127.0.0.1:9"), False)
    assert (found.state, found.needed) == ("lacking", True)
    assert found.found == "no answer at http://127.0.0.1:9: Connection refused"
    (found,) = kubeflow(Server(), False)
    assert found.state == "not needed here"


def test_a_host_that_is_no_kubeflow():
    with Api({}) as other:
        other.answers_with = json.dumps({})
        (found,) = kubeflow(Server(host=other.url), False)
    assert found.state == "lacking"
    assert "refused (404)" in found.found
