"""Checks that the metrics of the classifiers agree with those of the selected one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from grocer.artifacts.evaluation import Evaluation

TOLERANCE = 1e-6
"""Tolerance between two values of the same metric, and of a share and the counts behind it."""

# Whether a check passed, and the contradiction if it did not.
Check = tuple[bool, str]


def classifier_checks(evaluation: Evaluation, baselines: Sequence[str]) -> Iterator[Check]:
    """Yield the checks of `classifiers` against test metrics and, if required, the baseline."""
    test, validation = evaluation.metrics.test, evaluation.metrics.validation
    selected, strategy = evaluation.selected, evaluation.combination.strategy
    for name in ("accuracy", "macro_f1", "ece", "ece_debiased", "ece_p_value", "log_loss"):
        same = close(getattr(selected, name), getattr(test, name))
        yield same, f"{name} of the selected classifier {strategy} differs from test {name}"
    same = close(selected.validation_log_loss, validation.log_loss)
    yield same, f"validation log-loss of {strategy} differs from that of the validation products"
    for name, classifier in evaluation.classifiers.items():
        same = classifier.products == test.products
        yield same, f"{name}: measured on {classifier.products:,} of {test.products:,} products"
    shares = {"adapter": 1.0, "ensemble": 1.0, "linear": 0.0}
    for name, classifier in evaluation.classifiers.items():
        same = classifier.language_model_share == shares.get(name, classifier.language_model_share)
        yield same, f"{name}: impossible share of products that the language model scores"
    if "linear" in baselines and "linear" in evaluation.baselines:
        yield from _linear(evaluation)


def _linear(evaluation: Evaluation) -> Iterator[Check]:
    """The baseline `linear` is the classifier `linear`."""
    classifier, baseline = evaluation.classifiers["linear"], evaluation.baselines["linear"]
    products = evaluation.metrics.test.products
    if baseline.products == products:
        for name in ("accuracy", "macro_f1"):
            same = close(getattr(classifier, name), getattr(baseline, name))
            yield same, f"{name} of the classifier linear differs from that of the baseline"
    paired = baseline.paired_log_loss
    if paired is not None and baseline.paired.products == products:
        same = close(paired.model_log_loss, evaluation.metrics.test.log_loss)
        yield same, "linear: paired log-loss of the model differs from test log-loss"
        same = close(paired.baseline_log_loss, classifier.log_loss)
        yield same, "linear: paired log-loss differs from that of the classifier linear"


def close(one: float, other: float) -> bool:
    """Return whether two values are equal except for rounding."""
    return abs(one - other) <= TOLERANCE * max(1.0, abs(other))
