"""The bound of a paired difference has the stated error rate, and grows with the evidence."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.model.paired_difference import upper_bound


def bound(products: int, won: int, lost: int, level: float = 0.05) -> float:
    return -float(upper_bound(lost, won, products, level))


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


@given(st.integers(1, 50), st.integers(1, 50), st.integers(101, 2000))
def test_bound_is_below_the_difference_and_grows_with_each_product_won(won, lost, products):
    assert -1 < bound(products, won, lost) < (won - lost) / products
    assert bound(products, won, lost) > bound(products, won - 1, lost)
    assert bound(products, won, lost) < bound(products, won, lost - 1)
    assert bound(products, won, lost, 0.001) < bound(products, won, lost)


def test_bounds_are_computed_elementwise():
    pairs = [(0, 0), (3, 1), (1, 3)]
    together = upper_bound(*np.array(pairs).T, 300, 0.05)
    assert together == pytest.approx([float(upper_bound(*pair, 300, 0.05)) for pair in pairs])


def test_bound_of_contradicting_counts_is_finite():
    assert math.isfinite(bound(10, 40, 90))
    assert math.isfinite(bound(10, 90, 40))


@pytest.mark.parametrize(("lost", "products"), [(0, 100), (0, 2000), (7, 50), (30, 30)])
def test_bound_without_gains_is_the_wilson_bound(lost, products):
    """With no product gained, the difference is a single proportion."""
    z, share = 1.6448536269514722, lost / products
    centre = share + z * z / (2 * products)
    spread = z * np.sqrt(share * (1 - share) / products + (z / (2 * products)) ** 2)
    expected = (centre + spread) / (1 + z * z / products)
    bound = float(upper_bound(lost, 0, products, 0.05))
    assert bound == pytest.approx(expected, abs=1e-9)


def test_bound_covers_the_true_difference_in_95_percent_of_samples():
    random = np.random.default_rng(0)
    counts = random.multinomial(1000, [0.02, 0.01, 0.97], size=2000)
    bounds = upper_bound(counts[:, 0], counts[:, 1], 1000, 0.05)
    assert (bounds >= 0.01).mean() == pytest.approx(0.95, abs=0.015)
