"""`grocer promote` and `grocer rollback` end a canary."""

import json

import pytest

from grocer.config.deployment import DeployConfig
from pipelines.cli.main import execute
from serving.rollout.inference_service import Canary, Revision, State, apply_configuration
from tests.fixtures.kubernetes_api import INFERENCE_SERVICES, OLD, Api, revision
from tests.fixtures.ports import free_port

NEW = "1" * 64


@pytest.fixture
def api(api: Api) -> Api:
    """Return the API of a cluster with a canary."""
    canary = Canary(Revision(f"s3://b/{NEW}", NEW, "grocer", "c1"), 20)
    api.apply(apply_configuration(DeployConfig(), State(revision(OLD), canary)))
    return api


@pytest.mark.parametrize(("command", "digest"), [("promote", NEW), ("rollback", OLD)])
def test_one_revision_remains(
    api: Api, capsys: pytest.CaptureFixture[str], command: str, digest: str
) -> None:
    assert execute([command]) == 0
    assert digest in capsys.readouterr().out.splitlines()[-1]
    assert api.canary is None
    assert api.model["storageUri"] == f"s3://b/{digest}"


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_missing_canary_is_a_user_error(
    api: Api, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert execute([command]) == 0
    assert execute([command]) == 2
    assert "no canary" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["promote", "rollback", "status"])
def test_answer_without_an_inference_service_is_a_user_error(
    api: Api, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    api.responses[f"{INFERENCE_SERVICES}grocer"] = (200, {})
    assert execute([command]) == 2
    assert "unexpected response" in capsys.readouterr().err


def test_canary_without_requests_is_rolled_back_with_its_own_exit_code(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["promote", "--auto", "--set", "deploy.analysis_seconds=0.1"]) == 3
    assert "too few requests" in capsys.readouterr().out.splitlines()[-1]
    assert api.canary is None
    assert api.model["storageUri"] == f"s3://b/{OLD}"


def test_unreachable_pods_change_nothing(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    api.metrics_ports[OLD] = free_port()
    assert execute(["promote", "--auto"]) == 2
    assert "run this command where" in capsys.readouterr().err
    assert api.canary.traffic_percent == 20


def test_interrupted_promotion_is_completed(api: Api) -> None:
    api.service["spec"]["canary"][0]["trafficPercent"] = 100
    assert execute(["promote", "--auto"]) == 0
    assert api.model["storageUri"] == f"s3://b/{NEW}"


def test_status_as_table_and_json(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["status"]) == 0
    assert NEW[:12] in capsys.readouterr().out
    assert execute(["status", "--json"]) == 0
    stable, canary = json.loads(capsys.readouterr().out)["predictors"]
    assert (stable["digest"], canary["digest"]) == (OLD, NEW)


def test_namespace_is_configurable(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["promote", "--set", "deploy.namespace=shop"]) == 2
    assert capsys.readouterr().err.startswith("grocer: ")
    assert api.canary is not None
