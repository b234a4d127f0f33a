"""The deploy step as Kubeflow calls it, with object storage and a Kubernetes API over HTTP."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.training.deploy import deploy
from grocer.config.recipes import tiny
from grocer.errors import DeployError
from grocer.io.atomic import read_json
from grocer.release import registry
from grocer.release.bundle import load_bundle
from tests.fixtures.artifacts import as_inputs, write_artifacts
from tests.fixtures.kubernetes_api import NO_IMAGE, OLD, Api

Step = Callable[..., Any]


@pytest.fixture
def step(api: Api, bucket: str, tmp_path: Path) -> Step:
    """Return a function that runs the step with these settings and returns its predictions."""

    def run(*settings: str) -> Any:
        store = [f"deploy.store=s3://{bucket}/all", f"deploy.address={api.url}"]
        config = tiny().with_settings([*store, *settings])
        artifacts = write_artifacts(tmp_path / "artifacts", config, champion=OLD)
        outputs = {name: tmp_path / name for name in ("bundle", "predictions", "analysis")}
        deploy.python_func(**as_inputs(artifacts | outputs), config=config.to_json())
        return read_json(tmp_path / "predictions" / "predictions.json")

    return run


def test_bundle_is_published_rolled_out_and_tested(
    api: Api, bucket: str, step: Step, tmp_path: Path
) -> None:
    predictions = step()
    assert [each["product_name"] for each in predictions] == ["Milk", "Bread"]
    (bundle,) = (tmp_path / "bundle").iterdir()
    assert api.model["storageUri"] == f"s3://{bucket}/all/{bundle.name}"
    published = registry.open_bundle(api.model["storageUri"], tmp_path / "published")
    assert published.manifest == load_bundle(bundle).manifest


CANARY = ("deploy.canary=20", "deploy.analysis=true", "deploy.analysis_seconds=0.1")


def test_canary_without_requests_is_rolled_back_with_a_page_and_a_verdict(
    api: Api, step: Step, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert step(*CANARY)
    page = (tmp_path / "analysis").read_text()
    assert "20 %: roll back" in page
    assert "too few requests" in page
    assert (api.model["storageUri"], api.canary) == (f"s3://b/{OLD}", None)
    assert "deploy FAILED" in capsys.readouterr().out


def test_rolled_back_canary_fails_the_step_if_configured(
    api: Api, step: Step, tmp_path: Path
) -> None:
    with pytest.raises(DeployError, match="too few requests"):
        step(*CANARY, "cluster.fail_if_gate_fails=true")
    assert not (tmp_path / "predictions").exists()
    assert api.canary is None


def test_first_deploy_has_a_verdict(
    api: Api, step: Step, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.service = Api({}).service
    step(*CANARY)
    assert api.canary is None
    assert "deploy passed" in capsys.readouterr().out


def test_step_without_a_canary_has_an_empty_page(step: Step, tmp_path: Path) -> None:
    step()
    assert "No canary" in (tmp_path / "analysis").read_text()


def test_failed_rollout_fails_the_step_and_leaves_no_artifact(
    api: Api, step: Step, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.pod_states = _AllNew(NO_IMAGE)
    with pytest.raises(DeployError, match=r"cannot be pulled .*; rolled back to 000000000000"):
        step()
    assert not (tmp_path / "predictions").exists()
    assert "cannot be pulled" in capsys.readouterr().out.splitlines()[-1]


class _AllNew(dict[str, Any]):
    """The same pod state for every bundle except the old one."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def get(self, digest: str, default: Any = None) -> Any:
        return default if digest == OLD else self._state
