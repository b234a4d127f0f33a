"""The classifier of a bundle: each strategy uses only its models, and combines them."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from grocer.artifacts.combination import Combination
from grocer.errors import ModelError
from grocer.inference.classifier import Classifier
from grocer.inference.scores import EncodedProduct
from grocer.model.combination import combine, linear_answers, scale
from tests.fixtures.artifacts import LABELS, linear_model, make_bundle
from tests.fixtures.evaluations import combination
from tests.fixtures.tiny_model import AISLES, NAMES, scorer

LINEAR = linear_model()
PRODUCTS = ["Bread", "Milk", "Organic Milk", "Fresh Apples", "żółw", "", "Organic Apples"]


class RecordingScorer:
    """A language model with random log-probabilities; records the names that it scores."""

    labels, leaves = tuple(LABELS), ()

    def __init__(self) -> None:
        self.scored: list[list[str]] = []

    def encode(self, names: Sequence[str]) -> list[EncodedProduct]:
        return [EncodedProduct(name, [len(name)], 3) for name in names]

    def log_probabilities(
        self, products: Sequence[EncodedProduct], progress: Callable[[int], None] | None = None
    ) -> np.ndarray:
        self.scored.append([product.name for product in products])
        seeds = [sum(product.name.encode()) for product in products]
        rows = [np.random.default_rng(seed).dirichlet(np.ones(len(LABELS))) for seed in seeds]
        return np.log(np.reshape(rows, (len(products), len(LABELS))))


def weights(strategy: str, **changes: float) -> Combination:
    return Combination.model_validate(combination(strategy) | changes)


def classifier(strategy: str, **changes: float) -> tuple[Classifier, RecordingScorer]:
    made, model = weights(strategy, **changes), RecordingScorer()
    scorer = model if made.uses_adapter else None
    return Classifier(made, scorer, LINEAR if made.uses_linear else None), model


@pytest.mark.parametrize("strategy", ["adapter", "ensemble", "linear"])
def test_scores_are_those_of_the_combination(strategy: str) -> None:
    served, model = classifier(strategy)
    scores = served.predict(PRODUCTS)
    adapter_log = model.log_probabilities(model.encode(PRODUCTS))
    linear_log = LINEAR.log_probabilities(PRODUCTS)
    expected = combine(served.combination, adapter_log, linear_log)
    assert scores.labels == served.labels == tuple(LABELS)
    assert scores.leaves == ()
    np.testing.assert_allclose(scores.probabilities, expected)


@pytest.mark.parametrize(("strategy", "tokens"), [("adapter", 3), ("ensemble", 3), ("linear", 0)])
def test_only_products_for_the_language_model_have_tokens(strategy: str, tokens: int) -> None:
    served, _ = classifier(strategy)
    assert {product.tokens for product in served.encode(PRODUCTS)} == {tokens}


def test_cascade_sends_only_uncertain_names_to_the_language_model() -> None:
    served, model = classifier("cascade", threshold=0.9)
    linear_log = LINEAR.log_probabilities(PRODUCTS)
    alone = linear_answers(served.combination, linear_log)
    assert 0 < alone.sum() < len(PRODUCTS)
    encoded = served.encode(PRODUCTS)
    assert [product.tokens == 0 for product in encoded] == alone.tolist()
    scores = served.score(encoded)
    rest = [name for name, answered in zip(PRODUCTS, alone, strict=True) if not answered]
    assert model.scored == [rest]
    calibrated = scale(linear_log, served.combination.linear_alone)
    np.testing.assert_allclose(scores.probabilities[alone], calibrated[alone])
    ensemble, _ = classifier("ensemble")
    np.testing.assert_allclose(
        scores.probabilities[~alone], ensemble.predict(PRODUCTS).probabilities[~alone]
    )


@pytest.mark.parametrize("strategy", ["adapter", "ensemble", "cascade", "linear"])
def test_scores_do_not_depend_on_the_batch(strategy: str) -> None:
    served, _ = classifier(strategy)
    together = served.predict(PRODUCTS).probabilities
    alone = np.concatenate([served.predict([name]).probabilities for name in PRODUCTS])
    np.testing.assert_array_equal(together, alone)
    assert together.sum(axis=1) == pytest.approx(np.ones(len(PRODUCTS)))
    assert served.predict([]).probabilities.shape == (0, len(LABELS))


@pytest.mark.parametrize("strategy", ["adapter", "ensemble", "cascade", "linear"])
def test_check_uses_every_model(strategy: str) -> None:
    """A name that the linear model answers alone would not reveal a broken device."""
    served, model = classifier(strategy, **({"threshold": 0.0} if strategy == "cascade" else {}))
    served.check("milk")
    assert model.scored == ([["milk"]] if served.combination.uses_adapter else [])


@pytest.mark.parametrize(
    ("strategy", "has_scorer", "has_linear"),
    [
        ("adapter", False, False),
        ("adapter", True, True),
        ("cascade", True, False),
        ("linear", True, True),
        ("linear", False, False),
    ],
)
def test_missing_or_unused_model_is_rejected(
    strategy: str, has_scorer: bool, has_linear: bool
) -> None:
    with pytest.raises(ValueError, match="uses other models"):
        Classifier(
            weights(strategy),
            RecordingScorer() if has_scorer else None,
            LINEAR if has_linear else None,
        )


def test_models_with_different_labels_are_rejected() -> None:
    other = linear_model(["bakery", "produce", "dairy eggs"])
    with pytest.raises(ModelError, match="different labels"):
        Classifier(weights("ensemble"), RecordingScorer(), other)


def test_linear_strategy_loads_without_torch_and_base(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, strategy="linear")
    code = (
        "import sys; from pathlib import Path\n"
        "from grocer.inference.classifier import load_for_serving\n"
        "from grocer.release.bundle import load_bundle\n"
        "bundle = load_bundle(Path(sys.argv[1]))\n"
        "print(load_for_serving(bundle).predict(['Milk']).predicted_labels)\n"
        "assert not {'torch', 'sklearn', 'transformers'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = LINEAR.log_probabilities(["Milk"]).argmax()
    assert done.stdout.strip() == f"['{LABELS[expected]}']"


def test_aisles_sum_to_the_probability_of_the_predicted_label(base: Path) -> None:
    made = weights("adapter", aisle_temperature=2.0)
    two_levels = Classifier(made, scorer(base, aisles=AISLES))
    scores = two_levels.predict(NAMES)
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1.0, atol=1e-12)
    assert scores.leaf_probabilities.shape == (len(NAMES), 7)
    rows = zip(scores.predicted_labels, scores.confidence, scores.leaf_probabilities, strict=True)
    for label, confidence, leaves in rows:
        inside = np.array([department == label for department, _ in two_levels.leaves])
        assert leaves[inside].sum() == pytest.approx(confidence if inside.any() else 0)
        assert not leaves[~inside].any()


@pytest.mark.parametrize("strategy", ["adapter", "ensemble", "cascade", "linear"])
def test_classifier_of_a_bundle_has_its_weights(base: Path, tmp_path: Path, strategy: str) -> None:
    bundle = make_bundle(tmp_path, base=base, strategy=strategy)
    loaded = Classifier.load(bundle.path)
    assert loaded.combination == bundle.manifest.combination
    assert loaded.labels == bundle.labels
    assert loaded.predict(["Milk"]).probabilities.sum() == pytest.approx(1.0)
