"""A champion in object storage is fetched and verified before the comparison."""

from pathlib import Path
from typing import Any

import boto3
import pytest
from kfp import dsl

from components.training.evaluate import evaluate
from grocer.artifacts.adapter import Adapter
from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.splits import Splits
from grocer.config.recipes import tiny
from grocer.errors import BundleError
from grocer.evaluation import run as evaluating
from grocer.evaluation.champion import Champion
from grocer.io.atomic import tree_digests
from grocer.release import registry
from grocer.release.bundle import LoadedBundle
from tests.fixtures.artifacts import as_inputs, make_bundle, write_artifacts
from tests.fixtures.evaluations import evaluation, parse


@pytest.fixture
def bundle(tmp_path: Path) -> LoadedBundle:
    return make_bundle(tmp_path / "champion")


@pytest.fixture
def address(bundle: LoadedBundle, bucket: str) -> str:
    return registry.publish(bundle, f"s3://{bucket}/all")


@pytest.fixture
def champions(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str] | None]:
    """Replace the evaluation, and return the files of each champion that it was given."""
    champions: list[dict[str, str] | None] = []

    def record(
        adapter: Adapter, splits: Splits, config: Any, out: Path, champion: Champion | None
    ) -> Evaluation:
        champions.append(tree_digests(champion.bundle.path) if champion else None)
        (out / "report.html").write_text("<html></html>")
        return parse(evaluation())

    monkeypatch.setattr(evaluating, "run", record)
    return champions


def run(tmp_path: Path, champion: str) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts")
    paths = {name: artifacts[name] for name in ("model", "splits")}
    evaluate.python_func(
        **as_inputs(paths | {"evaluation": tmp_path / "evaluated", "page": tmp_path / "page"}),
        config=tiny().to_json(),
        champion=champion,
        metrics=dsl.Metrics(),
        confusion=dsl.ClassificationMetrics(),
    )


def test_champion_is_in_object_storage_or_a_directory_or_absent(
    address: str, bundle: LoadedBundle, champions: list[Any], tmp_path: Path
) -> None:
    for number, champion in enumerate((address, str(bundle.path), "")):
        run(tmp_path / str(number), champion)
    digests = tree_digests(bundle.path)
    assert champions == [digests, digests, None]


def test_modified_champion_is_rejected(
    address: str, bucket: str, bundle: LoadedBundle, champions: list[Any], tmp_path: Path
) -> None:
    key = f"all/{bundle.digest}/adapter_config.json"
    boto3.client("s3", region_name="us-east-1").put_object(Bucket=bucket, Key=key, Body=b"{}")
    with pytest.raises(BundleError, match="was modified"):
        run(tmp_path, address)
    assert champions == []
