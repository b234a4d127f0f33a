"""Linear model: multinomial logistic regression on TF-IDF features of product names.

    linear.npz  labels  words  characters  idf  coefficients  intercepts  c

The file holds plain arrays; nothing in it is unpickled. Texts are UTF-8 bytes.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grocer.errors import ModelError
from grocer.io.atomic import output_file
from grocer.model.combination import Floats, Ints, calibrated_log_loss, fit_weight, scale
from grocer.model.hierarchy import label_indices
from grocer.model.linear.tfidf import TfIdf
from grocer.progress import say

if TYPE_CHECKING:
    import pandas as pd

FILE = "linear.npz"
C_GRID = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Inverse regularisation strengths, in ascending order."""
FLOOR = 1e-6
"""Share of the uniform distribution in every prediction, so that no probability is 0."""
_TOLERANCE, _EPOCHS, _FOLDS = 3e-3, 200, 5
_UNSEEN = -1e4  # intercept of a label without training products
_AGAIN = "evaluate again, or download the bundle again"
_DTYPES = {
    "labels": np.uint8,
    "words": np.uint8,
    "characters": np.uint8,
    "idf": np.float32,
    "coefficients": np.float32,
    "intercepts": np.float32,
    "c": np.float64,
}


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A fitted model. Its probabilities are not calibrated."""

    labels: tuple[str, ...]
    features: TfIdf
    coefficients: NDArray[np.float32]
    """[features, labels]"""
    intercepts: NDArray[np.float32]
    """[labels]"""
    c: float
    """Inverse regularisation strength that was selected."""

    def log_probabilities(self, names: Sequence[str]) -> Floats:
        """Return log-probabilities, float64 [names, labels], all finite.

        They do not depend on the other names.
        """
        logits = self.features.transform(names) @ self.coefficients + self.intercepts
        shares = scale(logits, 1.0)
        return np.log((1 - FLOOR) * shares + FLOOR / len(self.labels))

    def save(self, directory: Path) -> None:
        """Write `linear.npz` into `directory`; the same model always gives the same bytes."""
        with output_file(directory / FILE) as part, part.open("wb") as file:
            np.savez(
                file,
                labels=_bytes(json.dumps(self.labels)),
                words=_bytes("\n".join(self.features.words)),
                characters=_bytes("\n".join(self.features.characters)),
                idf=self.features.idf,
                coefficients=self.coefficients,
                intercepts=self.intercepts,
                c=np.float64(self.c),
            )

    @classmethod
    def load(cls, directory: Path) -> LinearModel:
        """Return the model that `save` wrote into `directory`.

        Raises:
            ModelError: the file is missing, damaged or inconsistent.
        """
        path = directory / FILE
        if not path.is_file():
            raise ModelError(f"{path}: file not found; {_AGAIN}")
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            return _parse(arrays)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path}: not a valid linear model: {error}; {_AGAIN}") from error


def fit_linear(tables: Mapping[str, pd.DataFrame], labels: Sequence[str]) -> LinearModel:
    """Return the model of `train` with the lowest calibrated log-loss on `validation`.

    The regularisation is relaxed step by step until the log-loss rises. Deterministic.

    Args:
        tables: `train` and `validation` with product_name and department.
        labels: the label set, in the order of the columns; a label without training products gets
            the lowest probability.
    """
    train, validation = tables["train"], tables["validation"]
    say("evaluate", f"fitting the linear model on {len(train):,} training products")
    names, unseen = train["product_name"].tolist(), validation["product_name"].tolist()
    truth, expected = (label_indices(side["department"], labels) for side in (train, validation))
    features = TfIdf.fit(names)
    best: LinearModel | None = None
    best_loss = np.inf
    for model in _fits(labels, features, features.transform(names), truth, C_GRID):
        loss = calibrated_log_loss(model.log_probabilities(unseen), expected)
        say("evaluate", f"linear model: C {model.c:g}, validation log-loss {loss:.4f}")
        if best is not None and loss >= best_loss:
            break
        best, best_loss = model, loss
    if best is None:
        raise ValueError("no model was fitted")
    return best


def out_of_fold(
    names: Sequence[str],
    given: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    c: float,
) -> Floats:
    """Return calibrated probabilities [names, labels] by models not fitted on the product.

    Args:
        given: the label of each name.
        groups: names of one group are in the same fold, which depends on the group alone.
        c: inverse regularisation strength.
    """
    truth = label_indices(given, labels)
    fold = np.array([int(sha256(group.encode()).hexdigest(), 16) % _FOLDS for group in groups])
    features = TfIdf.fit(names)  # without labels, so the folds share it
    values = features.transform(names)
    logs = np.log(np.full((len(names), len(labels)), 1 / len(labels)))
    for each in np.unique(fold) if len(np.unique(fold)) > 1 else ():
        say("review", f"scoring fold {each + 1} of {_FOLDS}")
        others, rows = fold != each, np.flatnonzero(fold == each)
        [model] = _fits(labels, features, values[others], truth[others], (c,))
        logs[rows] = model.log_probabilities([names[int(row)] for row in rows])
    return scale(logs, fit_weight(logs, truth))


def _fits(
    labels: Sequence[str], features: TfIdf, values: Any, truth: Ints, strengths: Sequence[float]
) -> Iterator[LinearModel]:
    """Yield the model of each inverse regularisation strength.

    Args:
        values: matrix [products, features].
        truth: [products], the index of each label.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known, fitted = np.unique(truth, return_inverse=True)

    def model_of(c: float, coefficients: Floats, intercepts: Floats) -> LinearModel:
        """Return a model with a column for each label, also for those that are not known."""
        weights = np.zeros((len(features), len(labels)), dtype=np.float32)
        weights[:, known] = coefficients
        offsets = np.full(len(labels), _UNSEEN, dtype=np.float32)
        offsets[known] = intercepts
        return LinearModel(tuple(labels), features, weights, offsets, c)

    if len(known) == 1 or len(features) == 0:
        frequencies = np.bincount(fitted) / len(fitted)
        yield model_of(strengths[0], np.zeros((len(features), len(known))), np.log(frequencies))
        return
    # Each fit starts from the previous one, which is much faster than from 0.
    regression = LogisticRegression(
        solver="saga", tol=_TOLERANCE, max_iter=_EPOCHS, warm_start=True, random_state=0
    )
    for c in strengths:
        with warnings.catch_warnings():
            # A fit that is not converged is judged by its validation loss like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.set_params(C=c).fit(values, fitted)
        coefficients, intercepts = regression.coef_.T, regression.intercept_
        if len(known) == 2:  # scikit-learn has the log-odds of the second label only
            coefficients = np.hstack([np.zeros_like(coefficients), coefficients])
            intercepts = np.array([0.0, intercepts[0]])
        yield model_of(c, coefficients, intercepts)


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _parse(arrays: Mapping[str, NDArray[Any]]) -> LinearModel:
    """Return the model of the arrays of a file; raise ValueError if they are inconsistent."""
    if set(arrays) != set(_DTYPES):
        raise ValueError(f"arrays {', '.join(sorted(arrays))}; expected {', '.join(_DTYPES)}")
    for name, array in arrays.items():
        if array.dtype != _DTYPES[name]:
            raise ValueError(f"{name}: type {array.dtype}, expected {np.dtype(_DTYPES[name])}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: NaN or Inf")
    labels = json.loads(arrays["labels"].tobytes())
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("labels: not a list of texts")
    if not labels or len(set(labels)) < len(labels):
        raise ValueError("labels: empty or not distinct")
    words, characters = (
        tuple(filter(None, arrays[name].tobytes().decode().split("\n")))
        for name in ("words", "characters")
    )
    features = len(words) + len(characters)
    shapes = {
        "idf": (features,),
        "coefficients": (features, len(labels)),
        "intercepts": (len(labels),),
        "c": (),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name}: shape {arrays[name].shape}, expected {shape}")
    return LinearModel(
        tuple(labels),
        TfIdf(words, characters, arrays["idf"]),
        arrays["coefficients"],
        arrays["intercepts"],
        float(arrays["c"]),
    )
