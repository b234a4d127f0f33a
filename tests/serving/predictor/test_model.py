"""The predictor with real models: its predictions equal those of the classifier."""

import json
import re
import shutil
from pathlib import Path
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from grocer.errors import ModelError
from grocer.inference.batch import classify
from grocer.inference.classifier import Classifier
from grocer.release.bundle import LoadedBundle
from serving.predictor.metrics import Metrics
from serving.predictor.model import Predictor
from serving.predictor.serve import load_classifier
from serving.rollout.smoke_test import predict, running_predictor
from tests.fixtures.artifacts import LABELS, make_bundle
from tests.fixtures.predictor import StubScorer
from tests.fixtures.predictor_process import EXPLAIN

NAMES = ["Organic Milk", "Banana Bread [INST] </s>", "Crème 牛乳", "x" * 900]


@pytest.fixture(scope="module")
def bundle(base: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    return make_bundle(tmp_path_factory.mktemp("real"), base=base)


def test_predictions_of_a_file_equal_those_of_the_classifier(
    bundle: LoadedBundle, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("product_name\nOrganic Milk\n805\n")
    classify(tmp_path / "in.csv", tmp_path / "out.csv", bundle.path)
    rows = Classifier.load(bundle.path).predict(["Organic Milk", "805"]).probabilities
    lines = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in lines] == [LABELS[i] for i in rows.argmax(axis=1)]
    shares = [float(line.split(",")[2]) for line in lines]
    np.testing.assert_allclose(shares, rows.max(axis=1), atol=1e-5)


@pytest.mark.parametrize("strategy", ["cascade", "linear"])
def test_combined_classifier_is_served_and_explained(
    base: Path, tmp_path: Path, strategy: str
) -> None:
    bundle = make_bundle(tmp_path, base=base, strategy=strategy)
    classifier = Classifier.load(bundle.path)
    expected = classifier.predict(NAMES)
    linear = sum(product.tokens == 0 for product in classifier.encode(NAMES))
    assert 0 < linear < len(NAMES) or strategy == "linear"
    with running_predictor(bundle.path) as url:
        predictions = predict(url, NAMES, bundle.digest, timeout=0)
        metrics = httpx.get(f"{url}/metrics", timeout=60).text
        response = httpx.post(url + EXPLAIN, json={"instances": NAMES[:1]}, timeout=60)
    (explanation,) = response.json()["explanations"]
    for prediction, label, confidence in zip(
        predictions, expected.predicted_labels, expected.confidence, strict=True
    ):
        assert prediction["department"] == label
        assert prediction["probability"] == pytest.approx(confidence, abs=1e-5)
        assert len(prediction["alternatives"]) == len(LABELS)
    assert f'grocer_scored_total{{model="linear"}} {linear}.0' in metrics
    assert f'grocer_scored_total{{model="language_model"}} {len(NAMES) - linear}.0' in metrics
    assert re.search(rf'grocer_model_info\{{.*strategy="{strategy}"', metrics)
    without = classifier.predict(["Milk"]).probabilities[0, expected.predicted[0]]
    assert explanation["words"][0]["effect"] == pytest.approx(
        expected.confidence[0] - without, abs=1e-5
    )


def test_other_base_model_is_rejected(base: Path, bundle: LoadedBundle, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    with pytest.raises(ModelError, match="is not the base"):
        load_classifier(bundle.manifest.config.serving, tmp_path / "other", bundle)


def test_classifier_with_other_aisles_than_the_bundle_is_rejected(
    bundle_with_aisles: LoadedBundle,
) -> None:
    config = bundle_with_aisles.manifest.config.serving
    predictor = Predictor(
        bundle_with_aisles,
        config,
        Metrics(bundle_with_aisles, config, CollectorRegistry()),
        lambda bundle: StubScorer(bundle.labels, leaves=bundle.leaves[::-1]),
        on_failure=Mock(),
    )
    with pytest.raises(ModelError, match=r"aisles\.json"):
        predictor.batcher._load()


def test_predictor_does_not_load_the_compiler_of_torch(
    bundle: LoadedBundle, tmp_path: Path
) -> None:
    """Importing bitsandbytes loads it by default, which takes seconds."""
    script = (
        "import pathlib, sys; from serving.predictor.__main__ import main; main(); "
        f"pathlib.Path({str(tmp_path / 'modules')!r}).write_text(' '.join(sys.modules))"
    )
    with running_predictor(bundle.path, command=("-c", script)) as url:
        predict(url, NAMES[:1], bundle.digest, timeout=0)
    modules = (tmp_path / "modules").read_text().split()
    assert "bitsandbytes" in modules
    assert "torch._inductor.compile_fx" not in modules
