"""Drift: how far products are from the test products of an evaluation.

A signal is measured for each product: the confidence of its prediction, the shares of its words and
of its character n-grams that are not in the training vocabulary, and the predicted department. The
mean of a signal is compared with that of the test products, which the model has not seen in
training.

Traffic may consist of products, each about equally often, or follow purchases, of which a few
popular products are a large part. Neither is drift, nor is a mixture of both: a test rejects only
if every mixture is rejected.

The tests are Bernstein inequalities, which hold for any distribution of a bounded signal and for
any number of products, not only approximately. They assume that products are independent: names
that occur repeatedly count once.
"""

from collections.abc import Mapping, Sequence
from math import exp, sqrt

import numpy as np

from grocer.artifacts.drift import (
    DriftReference,
    EstimatedAccuracy,
    Signal,
    SignalReference,
    SignalTest,
)
from grocer.model.combination import Floats
from grocer.model.linear.tfidf import TfIdf
from grocer.model.prompts.template import clean

ERROR_PROBABILITY = 0.01
"""Probability that any signal reports drift without any: in a file, or while a predictor runs."""
MIN_PREDICTIONS = 1000
"""With fewer recent predictions, the distance of departments is not defined."""
WINDOW = 1000
"""Distinct names that a predictor tests together."""
SAMPLE = 32
"""Maximum number of names of one request that are measured: products of one request are alike, and
the event loop waits meanwhile."""
_DIRECTION: dict[Signal, int] = {"confidence": -1, "new_words": 1, "names": 1}
"""Sign of the difference that is drift; a vector has none."""
_BOUND: dict[Signal, float] = {"departments": sqrt(2)}
"""Maximum distance of a product's signal from the mean; 1 for others."""
_MIXTURES = np.linspace(0.0, 1.0, 11)
_Z = 1.96  # 95 % intervals


def case_key(name: str) -> str:
    """Return the same text for names that differ only in case, spaces or control characters."""
    return clean(name).lower()


def measure(
    names: Sequence[str], probabilities: Floats, features: TfIdf | None
) -> dict[Signal, Floats]:
    """Return the signals of products, float64 [products, 1]; of departments [products, labels].

    Args:
        probabilities: [products, labels], calibrated.
        features: of the linear model; None: the names are not measured.
    """
    signals: dict[Signal, Floats] = {"confidence": probabilities.max(axis=1, keepdims=True)}
    if features is not None:
        shares = np.reshape([features.new_shares(name) for name in names], (-1, 2))
        signals |= {"new_words": shares[:, :1], "names": shares[:, 1:]}
    signals["departments"] = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    return signals


def reference(
    signals: Mapping[Signal, Floats], purchases: Floats, catalogue: int
) -> DriftReference:
    """Return what other products are compared with.

    Args:
        signals: of the test products.
        purchases: [products], of the test products.
        catalogue: number of all products, of which the test products are a random sample.
    """
    weights = _occurrence(purchases, WINDOW / catalogue)
    weights = weights / weights.sum()
    return DriftReference(
        products=len(purchases),
        effective_purchases=max(1.0, float(1 / (weights**2).sum())),
        signals={name: _describe(values, weights) for name, values in signals.items()},
    )


def _occurrence(purchases: Floats, share: float) -> Floats:
    """Return the probability of each product to occur among as many purchases as have `share` of
    all products. They are equal if so many products were not purchased.
    """
    from scipy.optimize import brentq

    if (purchases > 0).mean() <= share:
        return np.ones_like(purchases)

    def excess(rate: float) -> float:
        return float(-np.expm1(-rate * purchases).mean()) - share

    # With this rate, every product that was purchased occurs almost certainly.
    result: Floats = -np.expm1(
        -brentq(excess, 0.0, 40 / purchases[purchases > 0].min()) * purchases
    )
    return result


def _describe(values: Floats, weights: Floats) -> SignalReference:
    weightings = (np.full_like(weights, 1 / len(weights)), weights)
    means = [each @ values for each in weightings]
    covariances = [
        np.atleast_2d(np.cov(values, rowvar=False, ddof=0, aweights=each)) for each in weightings
    ]
    return SignalReference(
        products=tuple(means[0].tolist()),
        purchases=tuple(means[1].tolist()),
        variance=max(float(each.trace()) for each in covariances),
        largest_variance=max(0.0, *(float(np.linalg.eigvalsh(each)[-1]) for each in covariances)),
    )


def compare(
    signals: Mapping[Signal, Floats], known: DriftReference, window: int | None = None
) -> dict[Signal, SignalTest]:
    """Test the signals of products against those of the test products.

    Without drift, the probability that any signal reports drift, in any of the windows 1, 2, 3,
    ..., is at most `ERROR_PROBABILITY`: window k gets the share 1 / (k (k + 1)) of it, and these
    shares add up to 1.

    Args:
        window: number of the window, from 1; None: these products are tested once.
    """
    tests = len(signals) * (1 if window is None else window * (window + 1))
    return {name: _test(name, values, known, tests) for name, values in signals.items()}


def _test(name: Signal, values: Floats, known: DriftReference, tests: int) -> SignalTest:
    """Return the test of one signal, with the p-value of the mixture that fits best."""
    expected, mean = known.signals[name], values.mean(axis=0)
    p_value, distance = 0.0, np.inf
    for purchases in _MIXTURES:
        centre = (1 - purchases) * np.array(expected.products)
        centre += purchases * np.array(expected.purchases)
        # Per unit of standard deviation, that of the mean of a mixture of test products.
        deviation = (1 - purchases) / sqrt(known.products)
        deviation += purchases / sqrt(known.effective_purchases)
        error = deviation**2
        scale, bound = 1 / len(values) + error, _BOUND.get(name, 1.0) * max(1 / len(values), error)
        difference = mean - centre
        squared = float((difference**2).sum())
        distance = min(distance, sqrt(max(0.0, squared - expected.variance * scale)))
        if name in _DIRECTION:
            excess, by_chance = _DIRECTION[name] * float(difference[0]), 0.0
        else:  # the expected distance without drift is at most this
            by_chance = sqrt(expected.variance * scale)
            excess = sqrt(squared) - by_chance
        variance = expected.largest_variance * scale + 2 * bound * by_chance
        p_value = max(p_value, _tail(excess, variance, bound))
    is_scalar = name in _DIRECTION
    corrected = min(1.0, p_value * tests)
    return SignalTest(
        value=float(mean[0]) if is_scalar else distance,
        reference=expected.products[0] if is_scalar else 0.0,
        p_value=corrected,
        drift=corrected <= ERROR_PROBABILITY,
    )


def _tail(excess: float, variance: float, bound: float) -> float:
    """Return an upper bound of the probability that a mean exceeds its expectation by `excess`.

    Bernstein's inequality; for the norm of a vector, its extension by Bousquet (2002), with
    `variance` as defined there: exp(-x) where excess = sqrt(2 variance x) + bound x / 3.
    """
    if excess <= 0:
        return 1.0
    root = sqrt(2 * variance + 4 * bound * excess / 3) - sqrt(2 * variance)
    return exp(-((root / (2 * bound / 3)) ** 2))


def estimated_accuracy(confidence: Floats, known: DriftReference) -> EstimatedAccuracy:
    """Return the mean calibrated confidence as an estimate of accuracy (CBPE).

    The interval (95 %) has the chance of these products to be predicted correctly, and the error of
    the calibration that was measured on the test products. It holds while the calibration does.
    """
    mean = float(confidence.mean())
    variance = float((confidence * (1 - confidence)).mean())
    margin = _Z * sqrt(variance * (1 / len(confidence) + 1 / known.products))
    return EstimatedAccuracy(
        accuracy=mean, low=max(0.0, mean - margin), high=min(1.0, mean + margin)
    )


class Monitor:
    """Collects products in windows of `WINDOW` distinct names, and tests each complete window.

    It holds signals and hashes of the names of the current window, no names.

    Attributes:
        features: of the linear model, once it is loaded; None: the names are not measured.
        windows: number of complete windows.
        tests, accuracy: of the latest complete window; set with the first one.
    """

    def __init__(self, known: DriftReference) -> None:
        self.features: TfIdf | None = None
        self.windows = 0
        self.tests: dict[Signal, SignalTest]
        self.accuracy: EstimatedAccuracy
        self._known = known
        self._keys: set[int] = set()
        self._parts: list[dict[Signal, Floats]] = []

    def observe(self, names: Sequence[str], probabilities: Floats) -> bool:
        """Add at most `SAMPLE` products of one request; return whether a window is complete.

        The products are evenly spaced; repeated names of a window are skipped.
        """
        rows = []
        for row in np.unique(np.linspace(0, len(names) - 1, min(SAMPLE, len(names)), dtype=int)):
            key = hash(case_key(names[row]))
            if key not in self._keys and len(self._keys) < WINDOW:
                self._keys.add(key)
                rows.append(row)
        if rows:
            measured = measure([names[row] for row in rows], probabilities[rows], self.features)
            self._parts.append(measured)
        if len(self._keys) < WINDOW:
            return False
        signals = {
            name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]
        }
        self.windows += 1
        self.tests = compare(signals, self._known, self.windows)
        self.accuracy = estimated_accuracy(signals["confidence"][:, 0], self._known)
        self._keys.clear()
        self._parts.clear()
        return True


def closest_reference(counts: Floats, references: Floats) -> Floats:
    """Return the reference whose shares are the closest to those of `counts`.

    Args:
        counts: [labels], recent predictions of each label.
        references: [references, labels], shares that sum to 1.
    """
    distances = np.abs(counts / max(counts.sum(), 1.0) - references).sum(axis=1)
    result: Floats = references[distances.argmin()]
    return result


def department_distance(counts: Floats, references: Floats) -> float:
    """Return the total variation distance from the closest reference, debiased, between 0 and 1.

    Shares of a sample differ from the reference also without drift, the more so the more labels
    there are. The square of the mean distance without drift is subtracted from the squared
    distance. NaN with fewer than `MIN_PREDICTIONS`.
    """
    total = counts.sum()
    if total < MIN_PREDICTIONS:
        return float("nan")
    reference = closest_reference(counts, references)
    distance = np.abs(counts / total - reference).sum() / 2
    # Mean absolute deviation of a binomial share, by its normal approximation.
    by_chance = np.sqrt(2 * reference * (1 - reference) / (np.pi * total)).sum() / 2
    return float(np.sqrt(max(0.0, distance**2 - by_chance**2)))
