"""Tests that a real API server and its webhooks accept manifests/, by server-side dry run.

Requires an API server. Kinds without a CRD on the cluster are skipped.
"""

from collections.abc import Callable

import pytest

from tests.cluster.api import Api, apply, try_apply
from tests.cluster.installation import Namespaces, base_objects
from tests.cluster.pods import pod
from tests.manifests.kustomize import TARGETS, Object, build, get

pytestmark = pytest.mark.cluster
CLUSTER_SCOPED = {
    "Namespace",
    "ClusterStorageContainer",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


@pytest.fixture(scope="session")
def empty_namespaces(new_namespaces: Callable[[], Namespaces]) -> Namespaces:
    """Namespaces without objects, as a dry run requires existing namespaces."""
    names = new_namespaces()
    apply([o for o in base_objects(names) if o["kind"] == "Namespace"])
    return names


def _move(objects: list[Object], names: Namespaces) -> list[Object]:
    """Return the objects in the test namespaces; those without a namespace in the serving one."""
    moved = names.rename(objects)
    for manifest in moved:
        if manifest["kind"] not in CLUSTER_SCOPED:
            manifest["metadata"].setdefault("namespace", names.serving)
    return moved


@pytest.mark.parametrize(
    ("target", "component"),
    [
        *((name, "") for name in TARGETS),
        *(("overlays/kind", name) for name in ("canary", "keda", "scale-to-zero")),
    ],
)
def test_manifests_are_accepted(
    target: str, component: str, api: Api, empty_namespaces: Namespaces
) -> None:
    objects = build(target, component)
    known = [o for o in objects if api.serves(o["apiVersion"], o["kind"])]
    result = try_apply(_move(known, empty_namespaces), "--dry-run=server")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(known)
    missing = sorted({f"{o['kind']} ({o['apiVersion']})" for o in objects if o not in known})
    if missing:
        pytest.skip(f"{len(known)} objects accepted; no CRD for {', '.join(missing)}")


@pytest.fixture
def service(api: Api) -> Object:
    """The InferenceService of the overlay `kind`."""
    if not api.serves("serving.kserve.io/v1beta1", "InferenceService"):
        pytest.skip("KServe is not installed")
    return get(build("overlays/kind"), "InferenceService")


def test_unknown_field_is_rejected(service: Object, empty_namespaces: Namespaces) -> None:
    service["spec"]["predictor"]["maxReplica"] = 2
    result = try_apply(_move([service], empty_namespaces), "--dry-run=server")
    assert result.returncode != 0
    assert "maxReplica" in result.stderr


def test_kserve_webhook_validates_dry_runs(
    service: Object, kserve: None, empty_namespaces: Namespaces
) -> None:
    service["spec"]["predictor"]["minReplicas"] = -1
    result = try_apply(_move([service], empty_namespaces), "--dry-run=server")
    assert result.returncode != 0
    assert "admission webhook" in result.stderr


def test_restricted_profile_is_enforced(namespaces: Namespaces) -> None:
    manifest = pod("capabilities", namespaces.serving, "grocer-serve:none", ["true"])
    result = try_apply([manifest], "--dry-run=server")
    assert result.returncode == 0, result.stderr
    manifest["spec"]["containers"][0]["securityContext"]["capabilities"] = {}
    result = try_apply([manifest], "--dry-run=server")
    assert result.returncode != 0
    assert 'violates PodSecurity "restricted' in result.stderr
