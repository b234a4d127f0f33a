"""Comparison of the selected classifier with the champion, the bundle that is deployed.

Each comparison is another look at the test products, and the gate spends its error rate on all of
them. They are therefore counted: each leaves an empty file beside the champion, named by what was
compared with it,

    s3://bucket/prefix/.comparisons/<digest of the champion>/<digest of the comparison>

and a bundle records its own number, from which the count of the next champion continues.
"""

from __future__ import annotations

from dataclasses import dataclass

from grocer.artifacts.evaluation import EvaluationInputs
from grocer.artifacts.metrics import ChampionComparison, ComparisonNumber
from grocer.config.run import RunConfig
from grocer.evaluation import baselines, known_products, paired
from grocer.evaluation.predictions import Predictions, predict_labels
from grocer.io.atomic import json_digest
from grocer.io.storage import Storage
from grocer.release.bundle import LoadedBundle
from grocer.release.registry import is_image

_FOLDER = ".comparisons"


@dataclass(frozen=True)
class Champion:
    """The deployed bundle, and the path or URI that it was read from."""

    bundle: LoadedBundle
    address: str

    def compare(
        self, inputs: EvaluationInputs, test: Predictions, config: RunConfig
    ) -> ChampionComparison:
        """Measure the champion on the test products; it may have other labels.

        The comparison is recorded first, so that it counts even if the run fails afterwards.

        Raises:
            OutputError: it cannot be recorded.
        """
        number = self._record(inputs, config)
        names, truth = test.table["product_name"], test.table["department"]
        predicted = predict_labels(self.bundle.path, names, config)
        correct = truth.to_numpy(dtype=object) == predicted
        new = known_products.are_new(test.table["normalised_name"], self.bundle.path)
        return ChampionComparison(
            **dict(baselines.compare(truth, predicted, test.correct, config.evaluation)),
            digest=self.bundle.digest,
            number=number,
            new_products=paired.mcnemar(test.correct[new], correct[new]) if new.any() else None,
        )

    def _record(self, inputs: EvaluationInputs, config: RunConfig) -> ComparisonNumber | None:
        """Record the comparison and return its number; a step that is repeated does not count.

        None if the champion is in an OCI registry, which holds no files.
        """
        if is_image(self.address):
            return None
        if "://" in self.address:
            parent = self.address.rstrip("/").rpartition("/")[0]
        else:
            parent = str(self.bundle.path.resolve().parent)
        store = Storage(parent, setting="champion", step="evaluate")
        folder = f"{_FOLDER}/{self.bundle.digest}"
        compared = json_digest({**inputs.model_dump(), **config.predictor.model_dump(mode="json")})
        store.write_bytes(b"", f"{folder}/{compared}")
        with_champion = len(store.list(folder))
        own = self.bundle.manifest.evaluation.champion
        earlier = own.number.total if own and own.number else 0
        return ComparisonNumber(total=earlier + with_champion, with_champion=with_champion)
