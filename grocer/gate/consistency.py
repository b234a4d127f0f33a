"""Checks of an evaluation that its schema cannot express: undefined metrics and contradictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.metrics import BaselineComparison
from grocer.gate.classifiers import TOLERANCE, Check, classifier_checks
from grocer.gate.comparisons import comparison_checks


def count_metrics(evaluation: Evaluation, baselines: Sequence[str]) -> int:
    """Return the number of required metrics, including missing ones."""
    comparisons = [comparison for _, comparison in _comparisons(evaluation, baselines)]
    parts = [evaluation.metrics, *evaluation.departments.values(), *comparisons]
    parts += evaluation.classifiers.values()
    return sum(_leaves(part.model_dump()) for part in parts) + len(_absent(evaluation, baselines))


def _leaves(value: Any) -> int:
    return sum(map(_leaves, value.values())) if isinstance(value, dict) else 1


def undefined_metrics(evaluation: Evaluation, baselines: Sequence[str]) -> list[str]:
    """Return the keys of the required metrics that are missing or undefined.

    Precision may be undefined if no product was predicted as the label, and all metrics of a label
    without test products.
    """
    undefined = [f"baselines.{name}" for name in _absent(evaluation, baselines)]
    linear = evaluation.baselines.get("linear") if "linear" in baselines else None
    if linear is not None and linear.paired_log_loss is None:
        undefined.append("baselines.linear.paired_log_loss")
    for name, metrics in evaluation.departments.items():
        if metrics.support == 0:
            continue
        required = {
            "precision": metrics.precision is not None or not metrics.recall,
            "recall": metrics.recall is not None,
            "f1": metrics.f1 is not None,
        }
        undefined += [
            f"departments.{name}.{key}" for key, defined in required.items() if not defined
        ]
    return undefined


def contradictions(evaluation: Evaluation, baselines: Sequence[str]) -> list[str]:
    """Return the values of the evaluation that contradict each other."""
    checks = [*_intervals(evaluation), *_departments(evaluation), *_confusion(evaluation)]
    checks += classifier_checks(evaluation, baselines)
    for name, comparison in _comparisons(evaluation, baselines):
        checks += comparison_checks(name, comparison, evaluation.metrics.test)
    return [contradiction for passed, contradiction in checks if not passed]


def _absent(evaluation: Evaluation, baselines: Iterable[str]) -> list[str]:
    return [name for name in baselines if name not in evaluation.baselines]


def _comparisons(
    evaluation: Evaluation, baselines: Iterable[str]
) -> Iterator[tuple[str, BaselineComparison]]:
    """The named baselines that were measured, and the champion if there is one."""
    for name in baselines:
        if name in evaluation.baselines:
            yield name, evaluation.baselines[name]
    if evaluation.champion is not None:
        yield "champion", evaluation.champion


def _intervals(evaluation: Evaluation) -> Iterator[Check]:
    for side, metrics in evaluation.metrics:
        low, accuracy, high = metrics.accuracy_low, metrics.accuracy, metrics.accuracy_high
        inside = low - TOLERANCE <= accuracy <= high + TOLERANCE
        yield inside, f"{side} accuracy {accuracy:.4f} is outside its confidence interval"
        inside = metrics.cluster_low - TOLERANCE <= accuracy <= metrics.cluster_high + TOLERANCE
        yield inside, f"{side} accuracy {accuracy:.4f} is outside its interval by first word"
        top3 = accuracy <= metrics.top3_accuracy + TOLERANCE
        yield top3, f"{side} accuracy is above top-3 accuracy"
        debiased = metrics.ece_debiased <= metrics.ece + TOLERANCE
        yield debiased, f"{side} calibration error is higher when it is debiased"


def _departments(evaluation: Evaluation) -> Iterator[Check]:
    test, departments = evaluation.metrics.test, evaluation.departments.values()
    support = sum(metrics.support for metrics in departments)
    yield (
        support == test.products,
        (f"support of all departments is {support:,}, but {test.products:,} products were tested"),
    )
    correct = sum((metrics.recall or 0.0) * metrics.support for metrics in departments)
    same = _close(correct, test.accuracy * test.products, test.products)
    yield same, "recall by department does not add up to test accuracy"


def _confusion(evaluation: Evaluation) -> Iterator[Check]:
    for index, (name, row) in enumerate(zip(evaluation.labels, evaluation.confusion, strict=True)):
        metrics = evaluation.departments[name]
        correct = (metrics.recall or 0.0) * metrics.support
        same = sum(row) == metrics.support and _close(row[index], correct, metrics.support)
        yield same, f"the confusion matrix contradicts support or recall of {name}"


def _close(one: float, other: float, products: int) -> bool:
    """Whether two numbers of products are equal except for rounding."""
    return abs(one - other) <= TOLERANCE * products
