"""The lower bound of a paired difference has the stated error rate, and grows with the evidence."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.artifacts.metrics import PairedTest
from grocer.gate.difference import lower_bound


def bound(products: int, won: int, lost: int, level: float = 0.05) -> float:
    paired = PairedTest(
        products=products,
        model_accuracy=0.5,
        baseline_accuracy=0.5,
        only_model_right=won,
        only_baseline_right=lost,
        p_value=1.0,
    )
    return lower_bound(paired, level)


@pytest.mark.parametrize("level", [0.05, 0.001])
@pytest.mark.parametrize(("won_rate", "lost_rate"), [(0.03, 0.06), (0.01, 0.04), (0.0, 0.02)])
def test_bound_exceeds_the_true_difference_at_most_at_the_level(won_rate, lost_rate, level):
    """Summed over all outcomes of 200 products."""
    n, rates = 200, (won_rate, lost_rate, 1 - won_rate - lost_rate)
    wrong = 0.0
    for won in range(30):
        for lost in range(40):
            if bound(n, won, lost, level) > won_rate - lost_rate:
                ways = math.comb(n, won) * math.comb(n - won, lost)
                wrong += ways * math.prod(
                    rate**count
                    for rate, count in zip(rates, (won, lost, n - won - lost), strict=True)
                )
    assert wrong <= level


def test_bound_without_discordant_pairs_narrows_with_the_number_of_products():
    # As the score interval of 0 of 300: z² / (n + z²).
    assert bound(300, 0, 0) == pytest.approx(-(1.6449**2) / (300 + 1.6449**2), abs=1e-5)
    assert bound(4000, 0, 0) > bound(300, 0, 0)


@given(st.integers(1, 50), st.integers(1, 50), st.integers(101, 2000))
def test_bound_is_below_the_difference_and_grows_with_each_product_won(won, lost, products):
    assert -1 < bound(products, won, lost) < (won - lost) / products
    assert bound(products, won, lost) > bound(products, won - 1, lost)
    assert bound(products, won, lost) < bound(products, won, lost - 1)
    assert bound(products, won, lost, 0.001) < bound(products, won, lost)


def test_bound_of_contradicting_counts_is_finite():
    assert math.isfinite(bound(10, 40, 90))
    assert math.isfinite(bound(10, 90, 40))
