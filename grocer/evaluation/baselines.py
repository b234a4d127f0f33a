"""What the model must be better than, measured in the same run on the same test products."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from grocer.config.stages import EvaluationConfig
from grocer.evaluation import metrics

ROWS_FOR_TEST = 0.2
"""Share of purchase rows that the study's way of splitting puts aside."""


def majority(departments: Iterable[str]) -> str:
    """The most frequent department in training; of equals, the first by name."""
    return str(pd.Series(list(departments)).mode().iloc[0])


def linear(
    names: Iterable[str], departments: Iterable[str], asked: Iterable[str]
) -> NDArray[np.object_]:
    """Departments for the names `asked` by a linear SVM on TF-IDF of words and of characters.

    Words and pairs of words, and 2 to 5 characters within words: the conventional method, and
    hard to beat on product names. It learns from all of `names` and `departments`.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    classifier = make_pipeline(features, LinearSVC(C=0.3, random_state=0))
    classifier.fit(list(names), list(departments))
    return np.asarray(classifier.predict(list(asked)), dtype=object)


def compare(
    truth: Iterable[str],
    answered: Iterable[str],
    model_right: metrics.Bools,
    settings: EvaluationConfig,
) -> dict[str, Any]:
    """A baseline's numbers and its pairing with the model, both on the same products."""
    _, codes = np.unique([*truth, *answered], return_inverse=True)
    assert len(codes) == 2 * len(model_right), "a baseline is paired on the same products"
    true, given = np.split(codes.astype(np.int64), 2)
    right = true == given
    return {
        **metrics.accuracy(right, settings.confidence),
        "macro_f1": metrics.macro_f1(true, given),
        "paired": metrics.mcnemar(model_right, right),
    }


def as_the_study_measured(
    departments: Iterable[str], purchases: Iterable[int], seed: int
) -> dict[str, Any]:
    """Accuracy of a lookup table where purchase *rows* are split at random: it leaks.

    A product that was bought a hundred times lies on both sides, so remembering it is enough.
    Each row goes to test with probability `ROWS_FOR_TEST`; drawing a binomial for each product
    is the same as drawing for each of its rows. A product that the table never saw gets the
    department with the most training rows.
    """
    bought = np.array(list(purchases), dtype=np.int64)
    if bought.sum() == 0:
        bought = np.ones_like(bought)
    test = np.random.default_rng(seed).binomial(bought, ROWS_FOR_TEST)
    train = bought - test
    truth = np.array(list(departments), dtype=object)
    majority_by_rows = pd.Series(train).groupby(truth).sum().idxmax()
    seen = train > 0
    right = seen | (truth == majority_by_rows)
    return {
        "leaking": True,
        "train_accuracy": 1.0,  # the table holds every training row's product
        "test_accuracy": float(test[right].sum() / test.sum()),
        "share_of_test_products_seen_in_training": float(test[seen].sum() / test.sum()),
        "purchase_rows": int(bought.sum()),
    }
