"""The review queue: products whose label is worth reviewing, the most valuable first.

The value of a review is the probability that the label is wrong times the number of purchases of
the product, at least 1. It comes from three places:

- *suspected label*: a model that was not trained on the product disagrees with its label. Training
  products are scored by linear models of the other folds; validation and test products by the
  classifier that was evaluated.
- *unlabelled*: the product has no label; the linear model suggests one.
- *low confidence*: rows of a classified file below its confidence limit.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd

from grocer.artifacts.base import SIDES
from grocer.artifacts.evaluation import Evaluation
from grocer.dataset.split import family
from grocer.errors import ArtifactError, TableError
from grocer.inference.batch import ALTERNATIVES as RANKED_COLUMN
from grocer.inference.batch import DEPARTMENT, PROBABILITY
from grocer.io.tables import missing_column, open_source
from grocer.model.combination import Floats, combine
from grocer.model.linear.classifier import LinearModel, out_of_fold
from grocer.model.prompts.product_names import name_key

ALTERNATIVES = 5


@dataclass(frozen=True)
class Candidate:
    """A product to review."""

    name: str
    source: str
    """`suspected label`, `unlabelled` or `low confidence`."""
    previous_label: str
    """Label in the catalogue; empty if there is none."""
    alternatives: tuple[tuple[str, float], ...]
    """The most probable labels with their probabilities, the best first."""
    uncertainty: float
    """Probability that the current label, or without one the suggestion, is wrong."""
    purchases: int

    @property
    def value(self) -> float:
        """Expected number of purchases with a wrong label that the review finds."""
        return self.uncertainty * max(self.purchases, 1)

    @property
    def suggestion(self) -> str:
        """The most probable label."""
        return self.alternatives[0][0]


def run_candidates(run: Path) -> tuple[list[Candidate], tuple[str, ...]]:
    """Return every product of a finished run as a candidate, and the run's labels.

    Args:
        run: output directory of `grocer run`.

    Raises:
        ArtifactError, ModelError: an artifact is missing or damaged.
    """
    evaluation = Evaluation.of_run(run)
    evaluated, splits = evaluation.directory, run / "artifacts" / "build_dataset"
    if not (evaluated / "predictions.parquet").is_file():
        raise ArtifactError(f"{evaluated}: no predictions.parquet; run evaluate again")
    linear = LinearModel.load(evaluated)
    tables = [pd.read_parquet(splits / f"{side}.parquet") for side in SIDES]
    suspects = suspected(pd.concat(tables, ignore_index=True), evaluation.labels, linear.c)
    unlabelled = pd.read_parquet(splits / "unlabelled.parquet").assign(department="")
    scores = linear.log_probabilities(unlabelled["product_name"].tolist())
    calibrated = combine(evaluation.classifiers["linear"].combination, None, scores)
    suggested = _candidates("unlabelled", unlabelled, evaluation.labels, calibrated)
    predictions = pd.read_parquet(evaluated / "predictions.parquet")
    held_out = {name_key(candidate.name): candidate for candidate in _evaluated(predictions)}
    candidates = [held_out.get(name_key(candidate.name), candidate) for candidate in suspects]
    return candidates + suggested, evaluation.labels


def _evaluated(predictions: pd.DataFrame) -> list[Candidate]:
    """Return the validation and test products, as the evaluated classifier predicts them."""
    return [
        Candidate(
            name=row["product_name"],
            source="suspected label",
            previous_label=row["department"],
            alternatives=tuple(
                (label, float(p))
                for label, p in zip(
                    row["ranked_departments"], row["ranked_probabilities"], strict=True
                )
            ),
            uncertainty=1.0 - float(row["department_probability"]),
            purchases=int(row["purchases"]),
        )
        for row in predictions.query("split != 'train'").to_dict("records")
    ]


def suspected(examples: pd.DataFrame, labels: Sequence[str], c: float) -> list[Candidate]:
    """Return each labelled example, as linear models predict it that were not fitted on it.

    Args:
        examples: product_name, normalised_name, department and purchases of each product.
        c: inverse regularisation strength of the models.
    """
    names, given = examples["product_name"].tolist(), examples["department"].tolist()
    families = [family(name) for name in examples["normalised_name"]]
    probabilities = out_of_fold(names, given, labels, families, c)
    return _candidates("suspected label", examples, labels, probabilities)


def classified(path: Path, column: str, purchases: int = 0) -> list[Candidate]:
    """Return each row without department in a file that `classify` or `bulk` wrote.

    Args:
        column: column with the names.
        purchases: of a row without a value in the column `purchases`.

    Raises:
        SourceError, TableError: the file is not readable, or was not classified with a limit.
    """
    table = open_source(path)
    if column not in table.schema.names:
        raise missing_column(path, column, table.schema.names, "set --column")
    if missing := {DEPARTMENT, PROBABILITY, RANKED_COLUMN} - set(table.schema.names):
        raise TableError(
            f"{path}: no column {min(missing)!r}; expected the output of grocer classify or bulk "
            "with --min-probability"
        )
    candidates: list[Candidate] = []
    for chunk in table.chunks():
        for row in chunk.to_pylist():
            if row[DEPARTMENT] or not row[RANKED_COLUMN]:
                continue  # final, or blank
            bought = row.get("purchases")
            try:
                candidate = Candidate(
                    name=row[column],
                    source="low confidence",
                    previous_label="",
                    alternatives=tuple(
                        (label, float(p)) for label, p in json.loads(row[RANKED_COLUMN])
                    ),
                    uncertainty=1.0 - float(row[PROBABILITY]),
                    purchases=purchases if bought in (None, "") else int(float(bought)),
                )
            except (TypeError, ValueError) as error:
                raise TableError(
                    f"{path}: {row[column]!r}: {PROBABILITY}, {RANKED_COLUMN} or purchases is "
                    f"invalid: {error}; classify the file again"
                ) from error
            candidates.append(candidate)
    return candidates


def build_queue(
    candidates: Iterable[Candidate],
    reviewed: Collection[str] = (),
    limit: int | None = None,
    *,
    by_probability: bool = False,
) -> list[Candidate]:
    """Return the most valuable candidates, one for each normal form of a name.

    Args:
        reviewed: normal forms of names that need no further review.
        limit: maximum number of candidates; None: all.
        by_probability: order by the probability of an error, whatever the purchases.
    """
    worth = attrgetter("uncertainty" if by_probability else "value")
    best: dict[str, Candidate] = {}
    for candidate in candidates:
        key = name_key(candidate.name)
        if key not in reviewed and (key not in best or worth(candidate) > worth(best[key])):
            best[key] = candidate
    return sorted(best.values(), key=lambda each: (-worth(each), each.name))[:limit]


def _candidates(
    source: str, products: pd.DataFrame, labels: Sequence[str], probabilities: Floats
) -> list[Candidate]:
    """Return each product with its best labels; without a department, the best one is uncertain."""
    index = {label: i for i, label in enumerate(labels)}
    candidates = []
    for product, row in zip(products.to_dict("records"), probabilities, strict=True):
        order, given = np.argsort(-row, kind="stable")[:ALTERNATIVES], product["department"]
        candidates.append(
            Candidate(
                name=product["product_name"],
                source=source,
                previous_label=given,
                alternatives=tuple((labels[i], float(row[i])) for i in order),
                uncertainty=max(0.0, 1.0 - float(row[index[given] if given else order[0]])),
                purchases=int(product["purchases"]),
            )
        )
    return candidates
