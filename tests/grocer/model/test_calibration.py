"""Temperature scaling: recovers a known temperature, keeps the ranking, does not overflow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.model.calibration import BOUNDS, apply_temperature, fit_temperature


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fit_recovers_a_known_temperature(temperature):
    random = np.random.default_rng(1)
    calibrated = log_softmax(random.normal(size=(20_000, 5)) * 2)
    truth = (np.exp(calibrated).cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    assert fit_temperature(log_softmax(calibrated * temperature), truth) == pytest.approx(
        temperature, rel=0.05
    )


def test_fit_without_errors_stays_within_bounds():
    logs = log_softmax(np.eye(4) * 3)
    assert BOUNDS[0] <= fit_temperature(logs, np.arange(4)) < 1


@given(st.integers(0, 2**32), st.floats(*BOUNDS))
def test_rows_sum_to_one_and_keep_their_ranking(seed, temperature):
    logs = log_softmax(np.random.default_rng(seed).normal(size=(5, 7)) * 4)
    probabilities = apply_temperature(logs, temperature)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(5))
    assert (probabilities.argmax(axis=1) == logs.argmax(axis=1)).all()


def test_temperature_one_changes_nothing():
    logs = log_softmax(np.array([[0.3, -2.0, 1.1]]))
    assert apply_temperature(logs, 1.0) == pytest.approx(np.exp(logs))


@pytest.mark.parametrize(
    ("temperature", "second_row", "expected"),
    [(0.1, [-1e5, 0.0], [0.0, 1.0]), (1.0, [-1e5, -1e5], [0.5, 0.5])],
)
def test_extreme_log_probabilities_neither_overflow_nor_underflow(
    temperature, second_row, expected
):
    probabilities = apply_temperature(np.array([[0.0, -1e5], second_row]), temperature)
    assert probabilities.tolist() == [[1.0, 0.0], expected]


def test_float32_input_is_summed_in_float64():
    probabilities = apply_temperature(np.zeros((1, 3), dtype=np.float32), 1.5)
    assert probabilities.dtype == np.float64
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature"):
        apply_temperature(np.zeros((1, 2)), temperature)
