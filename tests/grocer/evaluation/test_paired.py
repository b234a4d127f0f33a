"""Paired tests: McNemar's test of accuracy, and a bootstrap test of log-loss."""

import numpy as np
import pytest

from grocer.evaluation import paired


@pytest.mark.parametrize(
    ("model", "baseline", "p"),
    [(9, 1, 0.02148), (1, 9, 0.02148), (5, 5, 1.0), (0, 0, 1.0), (6, 0, 0.03125)],
)
def test_mcnemar_is_the_exact_two_sided_test(model, baseline, p):
    model_correct = np.array([True] * model + [False] * baseline + [True] * 20)
    baseline_correct = np.array([False] * model + [True] * baseline + [True] * 20)
    test = paired.mcnemar(model_correct, baseline_correct)
    assert (test.only_model_right, test.only_baseline_right) == (model, baseline)
    assert test.p_value == pytest.approx(p, abs=1e-5)


def probabilities(true: np.ndarray) -> np.ndarray:
    """Return probabilities of two labels, those of the first one as given."""
    return np.stack([true, 1 - true], axis=1)


TRUTH = np.zeros(200, dtype=np.int64)
BASELINE = np.random.default_rng(1).uniform(0.2, 0.9, 200)


@pytest.mark.parametrize(("factor", "sign"), [(1.05, -1), (0.95, 1)])
def test_constant_difference_of_log_loss_has_the_smallest_p(factor, sign):
    test = paired.log_loss(probabilities(BASELINE * factor), probabilities(BASELINE), TRUTH)
    difference = test.model_log_loss - test.baseline_log_loss
    assert difference == pytest.approx(-np.log(factor))
    assert np.sign(difference) == sign
    assert test.p_value == pytest.approx(2 / (paired.RESAMPLES + 1))


def test_equal_probabilities_have_p_of_one():
    same = probabilities(BASELINE)
    assert paired.log_loss(same, same, TRUTH).p_value == 1.0


@pytest.mark.parametrize("size", [50, 800])
def test_p_of_log_loss_is_close_to_that_of_a_t_test(size):
    from scipy.stats import ttest_1samp

    random = np.random.default_rng(3)
    baseline = random.uniform(0.2, 0.9, size)
    model = np.clip(baseline * np.exp(random.normal(0.06, 0.3, size)), 0.01, 0.99)
    test = paired.log_loss(probabilities(model), probabilities(baseline), TRUTH[:1].repeat(size))
    expected = ttest_1samp(np.log(baseline) - np.log(model), 0.0).pvalue
    assert test.p_value == pytest.approx(expected, abs=0.03)


def test_p_of_log_loss_is_reproducible_and_symmetric():
    model = probabilities(np.clip(BASELINE + np.random.default_rng(2).normal(0, 0.1, 200), 0, 1))
    one = paired.log_loss(model, probabilities(BASELINE), TRUTH)
    assert paired.log_loss(model, probabilities(BASELINE), TRUTH) == one
    other = paired.log_loss(probabilities(BASELINE), model, TRUTH)
    assert other.p_value == one.p_value
    assert other.model_log_loss == one.baseline_log_loss


def test_resamples_are_drawn_in_blocks_of_bounded_size(monkeypatch):
    random = np.random.default_rng(5)
    model = probabilities(np.clip(BASELINE + random.normal(0.02, 0.2, 200), 0.01, 0.99))
    whole = paired.log_loss(model, probabilities(BASELINE), TRUTH)
    monkeypatch.setattr(paired, "_BLOCK", 100)  # less than one resample
    assert paired.log_loss(model, probabilities(BASELINE), TRUTH) == whole


@pytest.mark.parametrize("sizes", [(2, 3, 3), (3, 2, 3), (3, 3, 2), (0, 0, 0)])
def test_log_loss_of_other_products_is_rejected(sizes):
    model, baseline, truth = (np.full((n, 2), 0.5) for n in sizes)
    with pytest.raises(ValueError, match="probabilities of"):
        paired.log_loss(model, baseline, truth[:, 0].astype(np.int64))
