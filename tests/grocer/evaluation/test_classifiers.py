"""Classifiers are fitted and selected on validation, and measured on test."""

import numpy as np
import pandas as pd
import pytest

from grocer.config.stages import EvaluationConfig, PredictorConfig
from grocer.evaluation import classifiers
from grocer.evaluation.classifiers import ModelScores

LABELS = ("a", "b", "c")
SETTINGS = EvaluationConfig()


def logs(truth: np.ndarray, margin: float, seed: int) -> np.ndarray:
    """Return noisy log-probabilities in which the true label is ahead by `margin` on average."""
    logits = np.random.default_rng(seed).normal(size=(len(truth), len(LABELS)))
    logits[np.arange(len(truth)), truth] += margin
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def scores(adapter: float, linear: float, size: int = 300) -> ModelScores:
    """Return scores of validation and test with these margins of both models."""
    truth = {
        name: np.arange(size + i) % len(LABELS) for i, name in enumerate(("validation", "test"))
    }
    return ModelScores(
        labels=LABELS,
        tables={
            name: pd.DataFrame({"department": [LABELS[i] for i in rows]})
            for name, rows in truth.items()
        },
        adapter={name: logs(rows, adapter, 1) for name, rows in truth.items()},
        linear={name: logs(rows, linear, 2) for name, rows in truth.items()},
        adapter_seconds=10.0,
        linear_seconds=0.5,
    )


def measured(each: ModelScores):
    return classifiers.measure(each, SETTINGS)


def test_ensemble_of_independent_models_is_better_than_both():
    result = measured(scores(2.0, 2.0))
    best = min(result["adapter"].log_loss, result["linear"].log_loss)
    assert result["ensemble"].log_loss < best - 0.1
    assert result["ensemble"].accuracy > result["adapter"].accuracy


def test_throughput_follows_from_the_share_that_the_language_model_scores():
    result = measured(scores(2.0, 6.0, size=3000))
    assert result["adapter"].names_per_second == pytest.approx(3001 / 10)
    assert result["linear"].names_per_second == pytest.approx(3001 / 0.5)
    assert result["ensemble"].names_per_second == pytest.approx(3001 / 10.5)
    cascade = result["cascade"]
    assert 0 < cascade.language_model_share < 1
    seconds = 10 * cascade.language_model_share + 0.5
    assert cascade.names_per_second == pytest.approx(3001 / seconds)


@pytest.mark.parametrize(
    ("adapter", "linear", "two_levels", "expected"),
    [
        (6.0, 0.0, False, "adapter"),
        (0.0, 6.0, False, "linear"),
        (0.0, 6.0, True, "ensemble"),
        (6.0, 0.0, True, "adapter"),
        (1.5, 1.5, False, "ensemble"),
    ],
)
def test_auto_selects_the_best_on_validation(adapter, linear, two_levels, expected):
    each = scores(adapter, linear)
    auto = PredictorConfig(strategy="auto")
    assert classifiers.choose(measured(each), each, auto, two_levels=two_levels) == expected


@pytest.mark.parametrize("strategy", ["adapter", "linear", "ensemble", "cascade"])
def test_configured_strategy_is_selected_whatever_its_loss(strategy):
    each = scores(0.0, 6.0)
    config = PredictorConfig(strategy=strategy)
    assert classifiers.choose(measured(each), each, config, two_levels=False) == strategy


def test_selection_does_not_use_test_products():
    each = scores(6.0, 0.0)
    worse = {**each.adapter, "test": logs(np.arange(301) % 3, -6.0, 3)}
    swapped = ModelScores(**{**vars(each), "adapter": worse})
    auto, result = PredictorConfig(strategy="auto"), measured(swapped)
    assert classifiers.choose(result, swapped, auto, two_levels=False) == "adapter"
    for strategy, classifier in measured(each).items():
        assert result[strategy].combination == classifier.combination
