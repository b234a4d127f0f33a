"""The summary of a run has the documented keys, from the artifacts of its steps."""

import json
from pathlib import Path

import pytest

from grocer.artifacts.run_summary import artifacts_below, summarise
from grocer.errors import ArtifactError
from tests.fixtures.artifacts import hierarchical_metrics, write_artifacts, write_evaluation


@pytest.fixture
def artifacts(tmp_path: Path) -> dict[str, Path]:
    write_artifacts(tmp_path)
    return artifacts_below(tmp_path)


def test_summary_has_the_documented_keys(artifacts: dict[str, Path], tmp_path: Path) -> None:
    summarise(artifacts, tmp_path / ("a" * 64)).write(tmp_path)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["order_lines"] == {"read": 10, "with_nulls": 2, "kept": 8}
    assert (content["products"], content["departments"]) == (30, 3)
    assert content["split"] == {"train": 20, "validation": 5, "test": 5}
    assert set(content["metrics"]) == {"train", "validation", "test"}
    assert content["metrics"]["test"]["products"] == 300
    assert content["strategy"] == "adapter"
    assert set(content["classifiers"]) == {"adapter", "linear", "ensemble", "cascade"}
    assert content["classifiers"]["adapter"]["accuracy"] == content["metrics"]["test"]["accuracy"]
    assert set(content["baselines"]) == {"majority", "linear", "base_model"}
    assert content["gate"]["passed"] is True
    assert set(content["gate"]["reasons"][0]) == {"rule", "passed", "sentence"}
    assert content["bundle"] == {"path": str(tmp_path / ("a" * 64)), "digest": "a" * 64}
    steps = {"build_dataset", "evaluate", "gate", "ingest", "train"}
    assert set(content["seconds"]) == set(content["peak_rss_mb"]) == steps
    assert content["aisles"] is None


def test_summary_of_two_levels_has_the_aisle_metrics_of_test(
    artifacts: dict[str, Path], tmp_path: Path
) -> None:
    model, splits = artifacts["train"], artifacts["build_dataset"]
    evaluation = write_evaluation(tmp_path / "two", model, splits, hierarchical_metrics())
    summary = summarise({**artifacts, "evaluate": evaluation}, None)
    assert summary.aisles.accuracy == 0.7
    assert summary.bundle is None


def test_missing_artifact_is_rejected(artifacts: dict[str, Path]) -> None:
    (artifacts["ingest"] / "counts.json").unlink()
    with pytest.raises(ArtifactError, match=r"counts\.json: file not found"):
        summarise(artifacts, None)
