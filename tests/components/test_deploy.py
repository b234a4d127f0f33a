"""Protects the deploy step as Kubeflow calls it: a real store, and a cluster over HTTP."""

from __future__ import annotations

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
from grocer.release import registry as store
from grocer.release.bundle import load_bundle
from tests.fixtures.artifacts import write_artifacts
from tests.fixtures.kubernetes_api import OLD, Api, container


@pytest.fixture
def api(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="deployed")
    with Api({}, first=OLD) as made:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig(tmp_path / "config")))
        yield made


def run(api: Api, tmp_path: Path) -> Any:
    config = tiny().with_settings(
        [
            "deploy.store=s3://deployed/all",
            f"deploy.address={api.url}",
        ]
    )
    made = write_artifacts(tmp_path / "artifacts", config)
    deploy.python_func(
        **{name: SimpleNamespace(path=str(path)) for name, path in made.items()},
        config=config.to_json(),
        bundle=SimpleNamespace(path=str(tmp_path / "bundle")),
        answers=SimpleNamespace(path=str(tmp_path / "answers")),
    )
    return read_json(tmp_path / "answers" / "answers.json")


def test_the_bundle_is_published_rolled_out_and_asked(api: Api, tmp_path: Path) -> None:
    answers = run(api, tmp_path)
    assert [answer["product_name"] for answer in answers] == ["Milk", "Bread"]
    (made,) = (tmp_path / "bundle").iterdir()
    assert api.model["storageUri"] == f"s3://deployed/all/{made.name}"
    there = store.fetch(api.model["storageUri"], tmp_path / "back")
    assert there.manifest == load_bundle(made).manifest


def test_one_that_fails_ends_the_step_and_leaves_no_answers(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = {"status": {"containerStatuses": [container(waiting="ImagePullBackOff")]}}
    api.pod_states = _All(fault)
    with pytest.raises(DeployError, match=r"cannot be pulled .*; rolled back to 000000000000"):
        run(api, tmp_path)
    assert not (tmp_path / "answers").exists()
    assert "cannot be pulled" in capsys.readouterr().out.splitlines()[-1]


class _All(dict[str, Any]):
    """The same fate for every bundle but the former."""

    def __init__(self, fate: dict[str, Any]) -> None:
        self._fate = fate

    def get(self, digest: str, default: Any = None) -> Any:
        return default if digest == OLD else self._fate
