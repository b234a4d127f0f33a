"""Protects `grocer promote` and `grocer rollback`: one line to a person, and the exit code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from grocer.config.deployment import DeployConfig
from pipelines.cli.main import execute
from serving.rollout.inference_service import Canary, Revision, apply_configuration
from tests.fixtures.kubernetes_api import OLD, Api

NEW = "1" * 64


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    """A cluster with a canary, which the kubeconfig names."""
    with Api({}, first=OLD) as made:
        stable = Revision(f"s3://b/{OLD}", OLD, "grocer")
        beside = Canary(Revision(f"s3://b/{NEW}", NEW, "grocer", "c1"), 20)
        made.apply(apply_configuration(DeployConfig(), stable, beside))
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig(tmp_path / "config")))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield made


@pytest.mark.parametrize(("command", "left"), [("promote", NEW), ("rollback", OLD)])
def test_a_canary_ends_as_told(
    api: Api, capsys: pytest.CaptureFixture[str], command: str, left: str
) -> None:
    assert execute([command]) == 0
    assert left in capsys.readouterr().out.splitlines()[-1]
    assert api.canary is None
    assert api.model["storageUri"] == f"s3://b/{left}"


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_without_a_canary_it_is_the_users_mistake(
    api: Api, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert execute([command]) == 0
    assert execute([command]) == 2
    assert "grocer/grocer has no canary; deploy one" in capsys.readouterr().err


def test_where_it_is_can_be_set(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["promote", "--set", "deploy.namespace=shop"]) == 2
    assert capsys.readouterr().err.startswith("grocer: ")
    assert api.canary is not None
