"""Protects how a run finds its rival: the one given, else the bundle that serves on the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.find_champion import find_champion
from grocer.config.recipes import tiny
from grocer.errors import DeployError
from tests.fixtures.kubernetes_api import OLD, Api

CONFIG = tiny().to_json()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    with Api({}, first=OLD) as made:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig(tmp_path / "config")))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield made


def test_it_is_the_bundle_that_serves(api: Api) -> None:
    assert find_champion.python_func(config=CONFIG, bundle="") == f"s3://b/{OLD}"


def test_one_that_is_given_needs_no_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert find_champion.python_func(config=CONFIG, bundle="s3://b/other") == "s3://b/other"


def test_a_cluster_that_can_not_tell_ends_the_step(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its rival, an adapter would be judged too kindly."""
    api.service = None
    with pytest.raises(DeployError, match="not found"):
        find_champion.python_func(config=CONFIG, bundle="")
    assert "apply an overlay of manifests/" in capsys.readouterr().out
