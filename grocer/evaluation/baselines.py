"""Baselines of the evaluation, measured in the same run on the same test products."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from grocer.artifacts.metrics import BaselineComparison, PairedLogLoss, RowSplitLeakage
from grocer.config.stages import EvaluationConfig
from grocer.evaluation import metrics, paired
from grocer.model.linear.tfidf import TfIdf

TEST_ROWS = 0.2
"""Probability that a purchase row is a test row, in a random row split."""


def majority(departments: Iterable[str]) -> str:
    """Return the most frequent department; ties are broken alphabetically."""
    return str(pd.Series(list(departments)).mode().iloc[0])


def linear_svm(
    names: Iterable[str], labels: Iterable[str], test_names: Iterable[str]
) -> NDArray[np.object_]:
    """Return the labels that a linear SVM predicts for `test_names`.

    The SVM is fitted on `names` and `labels`. With hundreds of labels it is much faster to fit than
    the calibrated model of `grocer.model.linear.classifier`, whose features it uses.
    """
    from sklearn.svm import LinearSVC

    train = list(names)
    features = TfIdf.fit(train)
    classifier = LinearSVC(C=0.3, random_state=0).fit(features.transform(train), list(labels))
    return np.asarray(classifier.predict(features.transform(list(test_names))), dtype=object)


def compare(
    truth: Sequence[str] | pd.Series[str],
    predicted: ArrayLike,
    model_correct: metrics.Bools,
    settings: EvaluationConfig,
    paired_log_loss: PairedLogLoss | None = None,
) -> BaselineComparison:
    """Return a baseline's metrics and its paired tests against the model on the same products.

    Raises:
        ValueError: the number of predictions is not the number of products.
    """
    true, labels = np.asarray(truth, dtype=object), np.asarray(predicted, dtype=object)
    if not len(true) == len(labels) == len(model_correct):
        raise ValueError(f"{len(labels)} predictions for {len(true)} products")
    correct: metrics.Bools = true == labels
    return BaselineComparison(
        **metrics.accuracy(correct, settings.confidence),
        macro_f1=metrics.macro_f1(list(true), list(labels)),
        paired=paired.mcnemar(model_correct, correct),
        paired_log_loss=paired_log_loss,
    )


def row_split_leakage(departments: Iterable[str], purchases: Iterable[int]) -> RowSplitLeakage:
    """Return the accuracy of a lookup table if purchase *rows* are split at random.

    The reference study split its data like this. A product with many purchases is then both in
    training and in test, so memorising it is enough. Each row is a test row with probability
    `TEST_ROWS`; a binomial draw per product is equivalent to a draw per row. For a product without
    training rows, the table predicts the department with the most training rows.
    """
    rows = np.array(list(purchases), dtype=np.int64)
    if rows.sum() == 0:
        rows = np.ones_like(rows)
    test = np.random.default_rng(metrics.SEED).binomial(rows, TEST_ROWS)
    train = rows - test
    truth = np.array(list(departments), dtype=object)
    seen = train > 0
    correct = seen | (truth == pd.Series(train).groupby(truth).sum().idxmax())
    return RowSplitLeakage(
        train_accuracy=1.0,  # the table holds the product of every training row
        test_accuracy=float(test[correct].sum() / test.sum()),
        share_of_test_products_seen_in_training=float(test[seen].sum() / test.sum()),
        purchase_rows=int(rows.sum()),
    )
