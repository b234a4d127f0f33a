"""Checks that the paired tests agree with the accuracies that they compare."""

from __future__ import annotations

from collections.abc import Iterator

from grocer.artifacts.metrics import Accuracy, BaselineComparison, ChampionComparison, PairedTest
from grocer.gate.classifiers import TOLERANCE, Check, close


def comparison_checks(name: str, comparison: BaselineComparison, test: Accuracy) -> Iterator[Check]:
    """Yield the checks of the comparison of the model with a baseline or the champion.

    Args:
        test: metrics of the model on the test products.
    """
    paired = comparison.paired
    yield from _pairs(name, paired, test.products)
    if paired.products == comparison.products:
        same = close(paired.baseline_accuracy, comparison.accuracy)
        yield same, f"{name}: paired accuracy differs from accuracy"
    if paired.products == test.products:
        same = close(paired.model_accuracy, test.accuracy)
        yield same, f"{name}: paired accuracy of the model differs from test accuracy"
    if isinstance(comparison, ChampionComparison):
        yield from _champion(comparison)


def _pairs(name: str, paired: PairedTest, tested: int) -> Iterator[Check]:
    products, won, lost = paired.products, paired.only_model_right, paired.only_baseline_right
    model, baseline = paired.model_accuracy, paired.baseline_accuracy
    yield products <= tested, f"{name}: compared on more products than were tested"
    same = close(model - baseline, (won - lost) / products)
    yield same, f"{name}: accuracies contradict the discordant pairs"
    possible = won / products <= model + TOLERANCE and lost / products <= baseline + TOLERANCE
    yield possible, f"{name}: more discordant pairs than correct predictions"


def _champion(champion: ChampionComparison) -> Iterator[Check]:
    number, new, every = champion.number, champion.new_products, champion.paired
    if number is not None:
        counted = number.with_champion <= number.total
        yield counted, "champion: more comparisons with it than in total"
    if new is not None:
        yield from _pairs("champion, new products", new, every.products)
        part = (
            new.only_model_right <= every.only_model_right
            and new.only_baseline_right <= every.only_baseline_right
        )
        yield part, "champion: more discordant pairs on new products than on all"
