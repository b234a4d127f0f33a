"""Protects that a real API server takes manifests/, and refuses what they must never become.

Needs an API server; KServe's objects need its CRDs, and so on.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.api import Api, applied, apply
from tests.cluster.pods import pod
from tests.cluster.release import Namespaces, ground
from tests.manifests.kustomize import TARGETS, Object, build, one, with_component

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="session")
def empty(scratch: Callable[[], Namespaces]) -> Namespaces:
    """Namespaces for objects that are never made: a dry run wants theirs to exist."""
    names = scratch()
    applied([o for o in ground(names) if o["kind"] == "Namespace"])
    return names


def _placed(objects: list[Object], names: Namespaces) -> list[Object]:
    """In the session's namespaces; what has none, in that of serving."""
    placed = names.renamed(objects)
    for each in placed:
        if each["kind"] not in ("Namespace", "ClusterStorageContainer"):
            each["metadata"].setdefault("namespace", names.serving)
    return placed


def _dry_run(objects: list[Object], api: Api, names: Namespaces) -> None:
    """The API server and its webhooks take them, but for kinds that this cluster lacks."""
    known = [o for o in objects if api.serves(o["apiVersion"], o["kind"])]
    done = apply(_placed(known, names), "--dry-run=server")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(known)
    lacking = sorted({f"{o['kind']} ({o['apiVersion']})" for o in objects if o not in known})
    if lacking:
        pytest.skip(f"{len(known)} objects taken; the cluster has no CRD for {', '.join(lacking)}")


@pytest.mark.parametrize("name", TARGETS)
def test_it_is_taken(name: str, api: Api, empty: Namespaces) -> None:
    _dry_run(build(name), api, empty)


@pytest.mark.parametrize("component", ["canary", "keda"])
def test_options_are_taken(component: str, api: Api, empty: Namespaces) -> None:
    _dry_run(with_component("overlays/kind", component), api, empty)


def _service(api: Api) -> Object:
    if not api.serves("serving.kserve.io/v1beta1", "InferenceService"):
        pytest.skip("KServe is not installed: no InferenceService in serving.kserve.io/v1beta1")
    return one(build("overlays/kind"), "InferenceService")


def test_a_misspelt_field_is_refused(api: Api, empty: Namespaces) -> None:
    service = _service(api)
    service["spec"]["predictor"]["maxReplica"] = 2
    done = apply(_placed([service], empty), "--dry-run=server")
    assert done.returncode != 0
    assert "maxReplica" in done.stderr


def test_kserves_webhook_looks_at_them(api: Api, kserve: None, empty: Namespaces) -> None:
    """So that a dry run tells more than the schema."""
    service = _service(api)
    service["spec"]["predictor"]["minReplicas"] = -1
    done = apply(_placed([service], empty), "--dry-run=server")
    assert done.returncode != 0
    assert "admission webhook" in done.stderr


def test_a_pod_that_the_restricted_profile_forbids_is_refused(ground: Namespaces, api: Api) -> None:
    made = pod("rooted", ground.serving, "grocer-serve:none", ["true"])
    done = apply([made], "--dry-run=server")
    assert done.returncode == 0, done.stderr
    made["spec"]["containers"][0]["securityContext"]["capabilities"] = {}
    done = apply([made], "--dry-run=server")
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted' in done.stderr
