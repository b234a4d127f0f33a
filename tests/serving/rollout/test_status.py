"""What `grocer status` shows."""

from grocer.release.bundle import LoadedBundle
from serving.rollout.progressive import analyse
from serving.rollout.status import Status, status, table
from tests.fixtures.kubernetes_api import HTTP_ROUTES, NOT_READY, OLD, Api


def test_bundles_traffic_and_readiness(api: Api, stub_bundle: LoadedBundle) -> None:
    api.deploy(stub_bundle, canary=20)
    api.pod_states[stub_bundle.digest] = NOT_READY
    found = status(api.config(), api.cluster)
    canary = stub_bundle.digest
    assert [tuple(dict(each).values()) for each in found.predictors] == [
        ("stable", OLD, f"s3://b/{OLD}", 80, 1, 1),
        ("canary", canary, f"s3://b/{canary}", 20, 0, 1),
    ]
    assert Status.model_validate_json(found.model_dump_json()) == found
    assert f"canary  {canary[:12]}      20 %  0 of 1 pods ready" in table(found)


def test_traffic_is_unknown_without_a_route(api: Api) -> None:
    api.responses[f"{HTTP_ROUTES}grocer"] = (404, "404 page not found")
    (stable,) = status(api.config(), api.cluster).predictors
    assert stable.traffic_percent is None


def test_decisions_are_shown(api: Api, stub_bundle: LoadedBundle) -> None:
    settings = {"canary": [20], "analysis": True, "analysis_seconds": 0.1}
    api.deploy(stub_bundle, **settings)
    (decision,) = analyse(api.config(**settings), api.cluster)
    found = status(api.config(), api.cluster)
    assert [each.decision for each in found.decisions] == [decision]
    assert decision.text in table(found)
    assert [each.role for each in found.predictors] == ["stable"]


def test_service_without_a_bundle(new_api: Api) -> None:
    found = status(new_api.config(), new_api.cluster)
    assert found.predictors == ()
    assert "no bundle deployed" in table(found)


def test_stopped_service(api: Api) -> None:
    api.stop("kubectl-annotate")
    found = status(api.config(), api.cluster)
    assert found.stopped_by == "kubectl-annotate"
    assert "stopped by kubectl-annotate" in table(found)
