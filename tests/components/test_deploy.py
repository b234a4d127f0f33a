"""The deploy step as Kubeflow calls it, with object storage and a Kubernetes API over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from components.deploy import deploy
from grocer.config.recipes import tiny
from grocer.errors import DeployError
from grocer.io.atomic import read_json
from grocer.release import registry
from grocer.release.bundle import load_bundle
from tests.fixtures.artifacts import write_artifacts
from tests.fixtures.kubernetes_api import NO_IMAGE, OLD, Api


@pytest.fixture
def api(s3_environment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="deployed")
    with Api({}, first=OLD) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config")))
        yield api


def run(api: Api, tmp_path: Path, *settings: str) -> Any:
    config = tiny().with_settings(
        ["deploy.store=s3://deployed/all", f"deploy.address={api.url}", *settings]
    )
    artifacts = write_artifacts(tmp_path / "artifacts", config, champion=OLD)
    deploy.python_func(
        **{name: SimpleNamespace(path=str(path)) for name, path in artifacts.items()},
        config=config.to_json(),
        bundle=SimpleNamespace(path=str(tmp_path / "bundle")),
        predictions=SimpleNamespace(path=str(tmp_path / "predictions")),
        analysis=SimpleNamespace(path=str(tmp_path / "analysis.md")),
    )
    return read_json(tmp_path / "predictions" / "predictions.json")


def test_bundle_is_published_rolled_out_and_tested(api: Api, tmp_path: Path) -> None:
    predictions = run(api, tmp_path)
    assert [each["product_name"] for each in predictions] == ["Milk", "Bread"]
    (bundle,) = (tmp_path / "bundle").iterdir()
    assert api.model["storageUri"] == f"s3://deployed/all/{bundle.name}"
    published = registry.fetch(api.model["storageUri"], tmp_path / "published")
    assert published.manifest == load_bundle(bundle).manifest


CANARY = ("deploy.canary=20", "deploy.analysis=true", "deploy.analysis_seconds=0.1")


def test_canary_without_requests_is_rolled_back_with_a_page_and_a_verdict(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(api, tmp_path, *CANARY)
    page = (tmp_path / "analysis.md").read_text()
    assert "20 %: roll back" in page
    assert "too few requests" in page
    assert (api.model["storageUri"], api.canary) == (f"s3://b/{OLD}", None)
    assert "deploy FAILED" in capsys.readouterr().out


def test_rolled_back_canary_fails_the_step_if_configured(api: Api, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="too few requests"):
        run(api, tmp_path, *CANARY, "cluster.fail_if_gate_fails=true")
    assert not (tmp_path / "predictions").exists()
    assert api.canary is None


def test_first_deploy_has_a_verdict(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.service = Api({}).service
    run(api, tmp_path, *CANARY)
    assert api.canary is None
    assert "deploy passed" in capsys.readouterr().out


def test_step_without_a_canary_has_an_empty_page(api: Api, tmp_path: Path) -> None:
    run(api, tmp_path)
    assert "No canary" in (tmp_path / "analysis.md").read_text()


def test_failed_rollout_fails_the_step_and_leaves_no_artifact(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.pod_states = _AllNew(NO_IMAGE)
    with pytest.raises(DeployError, match=r"cannot be pulled .*; rolled back to 000000000000"):
        run(api, tmp_path)
    assert not (tmp_path / "predictions").exists()
    assert "cannot be pulled" in capsys.readouterr().out.splitlines()[-1]


class _AllNew(dict[str, Any]):
    """The same pod state for every bundle except the old one."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def get(self, digest: str, default: Any = None) -> Any:
        return default if digest == OLD else self._state
