"""Protects that a champion in a store is fetched, and checked, before it is compared with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from kfp import dsl

from components.evaluate import evaluate
from grocer.artifacts.adapter import Adapter
from grocer.artifacts.bundle import Bundle as BundleReference
from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.splits import Splits
from grocer.config.recipes import tiny
from grocer.errors import BundleError
from grocer.evaluation import run as evaluating
from grocer.io.atomic import tree_digests
from grocer.release import registry as store
from grocer.release.bundle import Bundle
from tests.fixtures.artifacts import make_bundle, write_artifacts
from tests.fixtures.evaluations import evaluation, parse


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "champion")


@pytest.fixture
def address(bundle: Bundle, moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="champions")
    return store.publish(bundle, "s3://champions/all")


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str] | None]:
    """Files of each champion that was compared with; measuring itself has tests of its own."""
    seen: list[dict[str, str] | None] = []

    def record(
        adapter: Adapter, splits: Splits, config: Any, out: Path, champion: BundleReference | None
    ) -> Evaluation:
        seen.append(tree_digests(Path(champion.uri)) if champion else None)
        (out / "report.html").write_text("<html></html>")
        return parse(evaluation())

    monkeypatch.setattr(evaluating, "run", record)
    return seen


def run(tmp_path: Path, champion: str) -> None:
    made = write_artifacts(tmp_path / "artifacts")
    at = {name: SimpleNamespace(path=str(path)) for name, path in made.items()}
    evaluate.python_func(
        model=at["model"],
        splits=at["splits"],
        config=tiny().to_json(),
        champion=champion,
        evaluation=SimpleNamespace(path=str(tmp_path / "evaluated")),
        page=SimpleNamespace(path=str(tmp_path / "page.html")),
        metrics=dsl.Metrics(),
        confusion=dsl.ClassificationMetrics(),
    )


def test_from_a_store(address: str, bundle: Bundle, compared: list[Any], tmp_path: Path) -> None:
    run(tmp_path, address)
    assert compared == [tree_digests(bundle.path)]


def test_from_a_directory(bundle: Bundle, compared: list[Any], tmp_path: Path) -> None:
    run(tmp_path, str(bundle.path))
    assert compared == [tree_digests(bundle.path)]


def test_none(compared: list[Any], tmp_path: Path) -> None:
    run(tmp_path, "")
    assert compared == [None]


def test_one_that_was_touched_is_not_compared_with(
    address: str, bundle: Bundle, compared: list[Any], tmp_path: Path
) -> None:
    key = f"all/{bundle.digest}/adapter_config.json"
    boto3.client("s3", region_name="us-east-1").put_object(Bucket="champions", Key=key, Body=b"{}")
    with pytest.raises(BundleError, match="was changed"):
        run(tmp_path, address)
    assert compared == []
