"""Combine the log-probabilities of the adapter and of the linear model.

All classifiers are a softmax of weighted log-probabilities. One model with one weight is
temperature scaling, where the weight is the reciprocal of the temperature. Two models with two
weights are a geometric mixture, the ensemble; it contains both scaled models as special cases.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from grocer.artifacts.combination import Combination, Strategy
from grocer.model.paired_difference import upper_bound

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BOUNDS = (0.1, 10.0)
"""Range of a single weight."""
CHEAPEST_FIRST: tuple[Strategy, ...] = ("linear", "cascade", "adapter", "ensemble")
TIE = 0.01
"""Difference of validation log-loss in nats up to which two classifiers are equally good."""
MAX_LOST = 0.002
"""Accuracy that the cascade may lose against the ensemble."""
NO_THRESHOLD = 1.0
"""Threshold of a cascade whose linear model never answers alone."""
_LEVEL = 0.05  # one-sided
_MINUS_INFINITY = -1e6  # finite, so that 0 * log(0) is 0; no weight makes its probability positive


def scale(log_probabilities: Floats, weight: float) -> Floats:
    """Return softmax(weight * log_probabilities), float64 [n, labels]; -inf gives 0.

    A weight below 1 lowers the confidence, above 1 raises it; the ranking never changes.

    Raises:
        ValueError: the weight is not positive.
    """
    if not weight > 0:
        raise ValueError(f"weight {weight}: expected a positive number")
    return np.exp(_log_softmax(weight * log_probabilities.astype(np.float64)))


def combine(
    combination: Combination, adapter_log: Floats | None, linear_log: Floats | None
) -> Floats:
    """Return the probabilities of a classifier, float64 [n, labels]; each row sums to 1.

    Args:
        adapter_log, linear_log: log-probabilities [n, labels] of the adapter and of the linear
            model; None where the strategy does not use the model. Rows of `adapter_log` where the
            linear model answers alone are not read.
    """
    return np.exp(_log_combined(combination, adapter_log, linear_log))


def linear_answers(combination: Combination, linear_log: Floats) -> Bools:
    """Return which rows [n] the linear model answers alone, so that the adapter is not needed."""
    if combination.threshold is None or combination.threshold >= NO_THRESHOLD:
        return np.full(len(linear_log), combination.strategy == "linear")
    confidence = scale(linear_log, combination.linear_alone).max(axis=1, initial=0.0)
    return np.asarray(confidence >= combination.threshold)


def log_loss(
    combination: Combination, adapter_log: Floats | None, linear_log: Floats | None, truth: Ints
) -> float:
    """Return the mean negative log-probability of the true labels, in nats."""
    combined = _log_combined(combination, adapter_log, linear_log)
    return float(-combined[np.arange(len(truth)), truth].mean())


def fit_weight(log_probabilities: Floats, truth: Ints) -> float:
    """Return the weight within `BOUNDS` with the lowest log-loss of `scale` plus a weak prior at 1.

    Without the prior, an error-free split would give the largest weight, and probabilities of 1.
    Fit it on validation products: on training products it would hide overconfidence, and on test
    products it would make the reported calibration error too small.

    Args:
        log_probabilities: [n, labels]; may hold -inf, except for true labels.
        truth: int64 [n], the index of the true label.
    """
    return _minimize([log_probabilities], truth, BOUNDS[0], [1.0])[0][0]


def calibrated_log_loss(log_probabilities: Floats, truth: Ints) -> float:
    """Return the log-loss of `scale` with the weight of `fit_weight`, in nats."""
    return _minimize([log_probabilities], truth, BOUNDS[0], [1.0])[1]


def fit_combinations(
    adapter_log: Floats, linear_log: Floats, truth: Ints, *, seed: int
) -> dict[Strategy, Combination]:
    """Return the classifiers of all strategies, fitted by log-loss on validation products.

    The cascade's weights are fitted on a random half, and its threshold is chosen on the other.

    Args:
        adapter_log, linear_log: [n, labels]; n is at least 1.
        truth: int64 [n], the index of the true label.
        seed: of the random halves.
    """
    ensemble = _fit_ensemble(adapter_log, linear_log, truth)
    order = np.random.default_rng(seed).permutation(len(truth))
    fit, rest = order[: (len(truth) + 1) // 2], order[(len(truth) + 1) // 2 :]
    weights = _fit_ensemble(adapter_log[fit], linear_log[fit], truth[fit])
    alone = fit_weight(linear_log[fit], truth[fit])
    threshold = choose_threshold(
        scale(linear_log[rest], alone),
        combine(weights, adapter_log[rest], linear_log[rest]),
        truth[rest],
    )
    return {
        "adapter": _combination("adapter", adapter=fit_weight(adapter_log, truth)),
        "ensemble": ensemble,
        "cascade": _combination(
            "cascade",
            adapter=weights.adapter,
            linear=weights.linear,
            linear_alone=alone,
            threshold=threshold,
        ),
        "linear": _combination("linear", linear=fit_weight(linear_log, truth)),
    }


def select(
    combinations: Mapping[Strategy, Combination],
    adapter_log: Floats,
    linear_log: Floats,
    truth: Ints,
) -> Strategy:
    """Return the strategy with the lowest log-loss on validation products.

    Strategies within `TIE` of the lowest are equally good, and the cheapest of them is chosen. A
    cascade without names for the linear model saves nothing and is never chosen.
    """
    losses = {
        strategy: log_loss(combination, adapter_log, linear_log, truth)
        for strategy, combination in combinations.items()
        if combination.threshold is None or combination.threshold < NO_THRESHOLD
    }
    limit = min(losses.values()) + TIE
    return next(s for s in CHEAPEST_FIRST if losses.get(s, np.inf) <= limit)


def choose_threshold(linear: Floats, ensemble: Floats, truth: Ints) -> float:
    """Return the smallest threshold at which the cascade loses little accuracy.

    At it and at all higher ones, the upper confidence bound of the accuracy that is lost against
    the ensemble does not exceed `MAX_LOST`. The threshold is the confidence of a product, or
    `NO_THRESHOLD` if none suffices.

    Args:
        linear, ensemble: calibrated probabilities [n, labels] of products on which neither was
            fitted.
    """
    confidence = linear.max(axis=1, initial=0.0)
    order = np.argsort(-confidence, kind="stable")
    linear_right, ensemble_right = ((p.argmax(axis=1) == truth)[order] for p in (linear, ensemble))
    # Element i: the linear model answers the i + 1 products of the highest confidence.
    lost = np.cumsum(ensemble_right & ~linear_right)
    gained = np.cumsum(linear_right & ~ensemble_right)
    ranked = confidence[order]
    # Products of equal confidence are answered by the same model.
    ends = (ranked > np.append(ranked[1:], -1.0)) & (ranked < NO_THRESHOLD)
    bounds = upper_bound(lost[ends], gained[ends], len(truth), _LEVEL)
    # Tested in this order up to the first failure, so that the level holds for all of them.
    suffices = np.logical_and.accumulate(bounds <= MAX_LOST)
    return float(ranked[ends][suffices].min(initial=NO_THRESHOLD))


def _combination(strategy: Strategy, **weights: float) -> Combination:
    defaults = {"adapter": 0.0, "linear": 0.0, "linear_alone": 0.0, "threshold": None}
    values = {**defaults, **weights}
    return Combination.model_validate({"strategy": strategy, **values, "aisle_temperature": 1.0})


def _fit_ensemble(adapter_log: Floats, linear_log: Floats, truth: Ints) -> Combination:
    """Return the ensemble of the lowest log-loss; it is not above that of either model alone."""
    alone = [fit_weight(log, truth) for log in (adapter_log, linear_log)]
    candidates = [
        _minimize([adapter_log, linear_log], truth, 0.0, [weight / 2 for weight in alone]),
        *(
            (weights, _loss([adapter_log, linear_log], truth, np.array(weights))[0])
            for weights in ([alone[0], 0.0], [0.0, alone[1]])
        ),
    ]
    # If both models are useless, the optimum is a uniform distribution: weights of 0.
    usable = [each for each in candidates if sum(each[0]) >= BOUNDS[0]]
    weights, _ = min(usable, key=lambda candidate: candidate[1])
    return _combination("ensemble", adapter=weights[0], linear=weights[1])


def _minimize(
    logs: Sequence[Floats], truth: Ints, lower: float, prior: Sequence[float]
) -> tuple[list[float], float]:
    """Return the most probable weights, and their log-loss in nats. The problem is convex.

    The prior of each weight is normal with variance 1 and mean `prior`; with n products it counts
    as much as the log-loss of one of them.
    """
    from scipy.optimize import minimize

    finite = [np.maximum(log, _MINUS_INFINITY).astype(np.float64) for log in logs]
    mean = np.array(prior)

    def penalized(weights: Floats) -> tuple[float, Floats]:
        loss, gradient = _loss(finite, truth, weights)
        offset = weights - mean
        return loss + float(offset @ offset) / (2 * len(truth)), gradient + offset / len(truth)

    bounds = [(lower, BOUNDS[1])] * len(logs)
    weights = minimize(penalized, mean, jac=True, method="L-BFGS-B", bounds=bounds).x
    return [float(weight) for weight in weights], _loss(finite, truth, weights)[0]


def _loss(logs: Sequence[Floats], truth: Ints, weights: Floats) -> tuple[float, Floats]:
    """Return the log-loss of the mixture and its gradient [weights]."""
    rows = np.arange(len(truth))
    log = _log_softmax(np.sum([w * each for w, each in zip(weights, logs, strict=True)], axis=0))
    probabilities = np.exp(log)
    gradient = [(probabilities * each).sum(axis=1) - each[rows, truth] for each in logs]
    return float(-log[rows, truth].mean()), np.array([each.mean() for each in gradient])


def _log_combined(
    combination: Combination, adapter_log: Floats | None, linear_log: Floats | None
) -> Floats:
    models = ((combination.adapter, adapter_log), (combination.linear, linear_log))
    used = [(weight, log) for weight, log in models if weight > 0 and log is not None]
    if len(used) < sum(weight > 0 for weight, _ in models):
        raise ValueError(f"strategy {combination.strategy!r} needs the scores of another model")
    result = np.empty(used[0][1].shape)
    alone = np.zeros(len(result), dtype=bool)
    if combination.strategy == "cascade" and linear_log is not None:
        alone = linear_answers(combination, linear_log)
        result[alone] = _log_softmax(combination.linear_alone * linear_log[alone])
    result[~alone] = _log_softmax(np.sum([weight * log[~alone] for weight, log in used], axis=0))
    return result


def _log_softmax(logits: Floats) -> Floats:
    from scipy.special import log_softmax

    result: Floats = log_softmax(logits, axis=1)
    return result
