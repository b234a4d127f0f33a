"""The champion is the configured bundle, or else the one deployed on the cluster."""

from pathlib import Path

import pytest

from components.training.find_champion import find_champion
from grocer.config.recipes import tiny
from grocer.errors import DeployError
from tests.fixtures.kubernetes_api import OLD, Api

CONFIG = tiny().to_json()


def test_deployed_bundle_is_the_champion(api: Api) -> None:
    assert find_champion.python_func(config=CONFIG, bundle="") == f"s3://b/{OLD}"


def test_configured_champion_needs_no_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert find_champion.python_func(config=CONFIG, bundle="s3://b/other") == "s3://b/other"


def test_unknown_champion_fails_the_step(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its champion, the gate would skip a rule."""
    api.service = None
    with pytest.raises(DeployError, match="not found"):
        find_champion.python_func(config=CONFIG, bundle="")
    assert "apply an overlay of manifests/" in capsys.readouterr().out
