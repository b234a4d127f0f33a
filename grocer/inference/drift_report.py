"""Compare the product names in a file with the test products of a bundle's evaluation."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from grocer.artifacts.drift import (
    DepartmentShare,
    DriftReport,
    DrivingProduct,
    NewWord,
    Signal,
    SignalReference,
)
from grocer.artifacts.metrics import Reference
from grocer.errors import TableError
from grocer.inference import drift
from grocer.inference.batch import CHUNK_ROWS, require_text
from grocer.inference.classifier import Classifier, load_for_serving
from grocer.inference.scores import Scores
from grocer.io.tables import open_source
from grocer.model.combination import Floats, Ints
from grocer.model.linear.tfidf import TfIdf
from grocer.model.prompts.template import is_blank
from grocer.progress import Ticker
from grocer.release.bundle import LoadedBundle, load_bundle

DRIVERS, NEW_WORDS = 10, 20
"""Products listed for each signal; new words listed."""


def report(
    source: Path,
    bundle: Path,
    *,
    column: str = "product_name",
    progress: bool = False,
    load: Callable[[LoadedBundle], Classifier] = load_for_serving,
) -> DriftReport:
    """Return how far the products in a file are from those that the bundle was evaluated on.

    Each distinct name counts once.

    Args:
        source: CSV or Parquet, by file extension.
        column: column with the product name.
        progress: report the progress on stdout.
        load: loads the classifier of the bundle.

    Raises:
        SourceError, TableError: the source is not readable, or lacks the column or any name.
        BundleError, ModelError: the bundle is invalid or cannot be loaded.
    """
    rows, names = _read(source, column)
    checked = load_bundle(bundle)
    classifier = load(checked)
    features = classifier.linear.features if classifier.linear is not None else None
    scores, signals = _score(names, classifier, features, progress)
    evaluation = checked.manifest.evaluation
    known = evaluation.reference.drift
    labels, confidence = scores.predicted_labels, scores.confidence
    new_words = [features.new_words(name) if features else [] for name in names]
    references = _department_shares(evaluation.reference, scores.labels)
    counts = np.bincount(scores.predicted, minlength=len(scores.labels)).astype(np.float64)
    distance = drift.department_distance(counts, references)
    return DriftReport(
        bundle=checked.digest,
        label=evaluation.label,
        rows=rows,
        products=len(names),
        test_products=known.products,
        error_probability=drift.ERROR_PROBABILITY,
        test_accuracy=evaluation.metrics.test.accuracy,
        estimated_accuracy=drift.estimated_accuracy(confidence, known),
        signals=drift.compare(signals, known),
        department_distance=None if np.isnan(distance) else distance,
        departments=_departments(scores.labels, counts, references),
        new_words=_frequent(new_words),
        drivers={
            name: tuple(
                DrivingProduct(
                    product_name=names[i],
                    department=labels[i],
                    confidence=confidence[i],
                    new_words=tuple(new_words[i]),
                )
                for i in _drivers(name, values, known.signals[name])
            )
            for name, values in signals.items()
        },
    )


def _read(source: Path, column: str) -> tuple[int, list[str]]:
    """Return the number of rows, and the distinct names."""
    table = open_source(source)
    require_text(table, source, column)
    rows, names = 0, dict[str, str]()
    for chunk in table.chunks(CHUNK_ROWS):
        rows += chunk.num_rows
        for name in chunk.column(column).to_pylist():
            if not is_blank(name):
                names.setdefault(drift.case_key(name), name)
    if not names:
        raise TableError(
            f"{source}: column {column!r} has no product names; at least 1 is required"
        )
    return rows, list(names.values())


def _score(
    names: Sequence[str], classifier: Classifier, features: TfIdf | None, progress: bool
) -> tuple[Scores, dict[Signal, Floats]]:
    ticker = Ticker("drift", len(names), "names") if progress else None
    parts: list[tuple[Scores, dict[Signal, Floats]]] = []
    for start in range(0, len(names), CHUNK_ROWS):
        chunk = names[start : start + CHUNK_ROWS]
        scores = classifier.predict(chunk)
        parts.append((scores, drift.measure(chunk, scores.probabilities, features)))
        if ticker is not None:
            ticker.at(start + len(chunk))
    signals = {name: np.concatenate([each[name] for _, each in parts]) for name in parts[0][1]}
    return Scores.concatenate([scores for scores, _ in parts]), signals


def _drivers(name: Signal, values: Floats, known: SignalReference) -> Ints:
    """Return the products that move the mean the most in the direction of its drift."""
    contributions = values[:, 0]
    if name == "confidence":
        contributions = -contributions
    elif name == "departments":
        contributions = values @ (values.mean(axis=0) - np.array(known.products))
    return np.argsort(-contributions, kind="stable")[:DRIVERS]


def _frequent(new_words: Iterable[Iterable[str]]) -> tuple[NewWord, ...]:
    """Return the new words of the most products."""
    counts = Counter(word for words in new_words for word in set(words))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(NewWord(word=word, products=count) for word, count in ranked[:NEW_WORDS])


def _department_shares(reference: Reference, labels: Sequence[str]) -> Floats:
    """Return the shares of the predictions and of the purchases, [2, labels]."""
    shares = reference.departments, reference.purchases
    return np.array([[each.get(label, 0.0) for label in labels] for each in shares])


def _departments(
    labels: Sequence[str], counts: Floats, references: Floats
) -> tuple[DepartmentShare, ...]:
    shares, closest = counts / counts.sum(), drift.closest_reference(counts, references)
    return tuple(
        DepartmentShare(department=labels[i], share=shares[i], reference=min(1.0, closest[i]))
        for i in np.argsort(-np.abs(shares - closest), kind="stable")
    )
