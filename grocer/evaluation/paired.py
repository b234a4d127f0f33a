"""Paired tests of the model against another one on the same products."""

from __future__ import annotations

import numpy as np

from grocer.artifacts.metrics import PairedLogLoss, PairedTest
from grocer.evaluation.metrics import SEED, Bools, Floats, Ints, losses

RESAMPLES = 10_000
"""Bootstrap resamples of the test of log-loss; the smallest p-value is 2 / 10,001."""
_BLOCK = 2**22
"""Drawn products that are held in memory at once."""


def mcnemar(model_correct: Bools, baseline_correct: Bools) -> PairedTest:
    """Return McNemar's exact two-sided test of model against baseline on the same products.

    The test uses the discordant pairs: products on which only one of the two is correct. Without
    discordant pairs, p is 1.
    """
    from scipy.stats import binomtest

    model = int((model_correct & ~baseline_correct).sum())
    baseline = int((baseline_correct & ~model_correct).sum())
    discordant = model + baseline
    return PairedTest(
        products=len(model_correct),
        model_accuracy=float(model_correct.mean()),
        baseline_accuracy=float(baseline_correct.mean()),
        only_model_right=model,
        only_baseline_right=baseline,
        p_value=float(binomtest(model, discordant).pvalue) if discordant else 1.0,
    )


def log_loss(model: Floats, baseline: Floats, truth: Ints) -> PairedLogLoss:
    """Return the paired bootstrap test of log-loss, two-sided.

    Products are resampled. p is twice the share of resamples in which the mean difference of the
    losses is zero or has the less frequent sign; numerator and denominator count one more
    resample, so p is never 0.

    Args:
        model, baseline: probabilities [n, labels] of the same products.
        truth: int64 [n], the index of the true label.

    Raises:
        ValueError: there are no products, or the numbers of products differ.
    """
    if not len(model) == len(baseline) == len(truth) > 0:
        raise ValueError(f"{len(model)} and {len(baseline)} probabilities of {len(truth)} products")
    model_losses, baseline_losses = losses(model, truth), losses(baseline, truth)
    differences = model_losses - baseline_losses
    random = np.random.default_rng(SEED)
    size = len(truth)
    lower = higher = 0
    for start in range(0, RESAMPLES, step := max(1, _BLOCK // size)):
        count = min(step, RESAMPLES - start)
        means = differences[random.integers(size, size=(count, size))].mean(axis=1)
        lower += int((means <= 0).sum())
        higher += int((means >= 0).sum())
    return PairedLogLoss(
        model_log_loss=float(model_losses.mean()),
        baseline_log_loss=float(baseline_losses.mean()),
        p_value=min(1.0, 2 * (min(lower, higher) + 1) / (RESAMPLES + 1)),
    )
