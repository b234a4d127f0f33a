"""The champion of the check is the configured bundle, or else the one deployed on the cluster."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from components.retraining.check_due import check_due
from grocer.config.recipes import tiny
from grocer.errors import DeployError, SourceError
from tests.fixtures.kubernetes_api import OLD, Api

CONFIG = tiny().with_settings(["deploy.store=s3://b"]).to_json()


def due(folder: Path, champion: str = "") -> bool:
    result: bool = check_due.python_func(
        config=CONFIG,
        when="30d",
        metrics="",
        cool_down_days=7.0,
        state=str(folder / "state"),
        champion=champion,
        reasons=SimpleNamespace(path=str(folder / "reasons.md")),
    )
    return result


def test_champion_is_the_deployed_bundle(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grocer.io.storage.FIRST_WAIT_SECONDS", 0.0)
    with pytest.raises(SourceError, match=f"30d .*s3://b/{OLD}"):
        due(tmp_path)
    api.service = None
    with pytest.raises(DeployError, match="not found"):
        due(tmp_path)
    api.service = Api({}).service
    assert due(tmp_path) is True
    page = (tmp_path / "reasons.md").read_text()
    assert page.startswith("# retraining is due: no champion")
    assert "| no champion | no bundle is deployed | - | yes |" in page


def test_configured_champion_needs_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(SourceError, match=r"30d .*/absent"):
        due(tmp_path, champion=f"/absent/{OLD}")
