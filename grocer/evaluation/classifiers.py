"""The classifiers of an adapter and a linear model: fitted and selected on validation products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from grocer.artifacts.combination import Combination, Strategy
from grocer.artifacts.metrics import ClassifierMetrics
from grocer.config.stages import EvaluationConfig, PredictorConfig
from grocer.evaluation import metrics
from grocer.model.combination import combine, fit_combinations, linear_answers, select
from grocer.model.hierarchy import label_indices
from grocer.progress import say


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """Log-probabilities of both models for each table, before calibration."""

    labels: tuple[str, ...]
    tables: Mapping[str, pd.DataFrame]
    adapter: Mapping[str, metrics.Floats]
    """[products, labels] of each table."""
    linear: Mapping[str, metrics.Floats]
    adapter_seconds: float
    """Time for the test products."""
    linear_seconds: float

    def truth(self, name: str) -> metrics.Ints:
        """Return the index of each product's department in the label set, for one table."""
        return label_indices(self.tables[name]["department"], self.labels)

    def probabilities(self, combination: Combination, name: str) -> metrics.Floats:
        """Return the calibrated probabilities [products, labels] of a classifier for one table."""
        return combine(combination, self.adapter[name], self.linear[name])


def choose(
    classifiers: Mapping[Strategy, ClassifierMetrics],
    scores: ModelScores,
    config: PredictorConfig,
    *,
    two_levels: bool,
) -> Strategy:
    """Return the configured strategy; with `auto`, the best one on the validation products.

    With two levels of labels, `auto` considers only the strategies that predict aisles.
    """
    if config.strategy != "auto":
        return config.strategy
    candidates = {
        strategy: classifier
        for strategy, classifier in classifiers.items()
        if not two_levels or strategy in ("adapter", "ensemble")
    }
    chosen = select(
        {strategy: classifier.combination for strategy, classifier in candidates.items()},
        scores.adapter["validation"],
        scores.linear["validation"],
        scores.truth("validation"),
    )
    losses = ", ".join(
        f"{strategy} {classifier.validation_log_loss:.4f}"
        for strategy, classifier in candidates.items()
    )
    say("evaluate", f"selected {chosen}; log-loss on the validation products: {losses}")
    return chosen


def measure(scores: ModelScores, settings: EvaluationConfig) -> dict[Strategy, ClassifierMetrics]:
    """Return the test metrics of every strategy's classifier, fitted on the validation products."""
    adapter, linear = scores.adapter["validation"], scores.linear["validation"]
    truth = scores.truth("validation")
    combinations = fit_combinations(adapter, linear, truth, seed=metrics.SEED)
    return {
        strategy: _measure(combination, scores, settings)
        for strategy, combination in combinations.items()
    }


def _measure(
    combination: Combination, scores: ModelScores, settings: EvaluationConfig
) -> ClassifierMetrics:
    truth, probabilities = scores.truth("test"), scores.probabilities(combination, "test")
    predicted = probabilities.argmax(axis=1)
    correct = predicted == truth
    share = 1.0 - float(linear_answers(combination, scores.linear["test"]).mean())
    seconds = share * scores.adapter_seconds
    if combination.uses_linear:
        seconds += scores.linear_seconds
    return ClassifierMetrics(
        **metrics.accuracy(correct, settings.confidence),
        macro_f1=metrics.macro_f1(truth, predicted),
        **dict(metrics.calibration(probabilities.max(axis=1), correct)),
        log_loss=metrics.log_loss(probabilities, truth),
        validation_log_loss=metrics.log_loss(
            scores.probabilities(combination, "validation"), scores.truth("validation")
        ),
        language_model_share=share,
        names_per_second=len(truth) / seconds,
        combination=combination,
    )
