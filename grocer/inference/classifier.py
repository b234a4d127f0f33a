"""The classifier of a bundle: the adapter, the linear model, or a combination of both.

Serving, batch classification and the evaluation of a deployed bundle use this class. It imports
torch and loads the base only if the strategy needs the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from grocer.artifacts.combination import Combination
from grocer.errors import ModelError
from grocer.inference.scores import EncodedProduct, Scores
from grocer.model.combination import Floats, combine, linear_answers
from grocer.model.hierarchy import Leaf, leaf_probabilities
from grocer.model.linear.classifier import LinearModel
from grocer.release.bundle import LoadedBundle
from grocer.release.manifest import Manifest

if TYPE_CHECKING:  # torch takes seconds to import
    from grocer.inference.scorer import Scorer


class Classifier:
    """Assigns a calibrated probability to every label. Not thread-safe.

    Args:
        scorer, linear: the models that `combination` uses; None for the other one.

    Raises:
        ValueError: a model is missing.
        ModelError: the models have different labels.
    """

    def __init__(
        self,
        combination: Combination,
        scorer: Scorer | None = None,
        linear: LinearModel | None = None,
    ) -> None:
        given = (scorer is not None, linear is not None)
        if given != (combination.uses_adapter, combination.uses_linear):
            raise ValueError(f"strategy {combination.strategy!r} uses other models")
        label_sets = {model.labels for model in (scorer, linear) if model is not None}
        if len(label_sets) > 1:
            raise ModelError("the adapter and the linear model have different labels")
        (self.labels,) = label_sets
        """The label set, in column order."""
        self.leaves: tuple[Leaf, ...] = scorer.leaves if scorer is not None else ()
        """Every label with each of its aisles, in column order; empty with one level of labels."""
        self.combination, self.scorer, self.linear = combination, scorer, linear

    @classmethod
    def load(
        cls,
        bundle: Path,
        *,
        token_budget: int = 1024,
        device: str = "auto",
        compute_dtype: str = "auto",
        base: Path | None = None,
    ) -> Classifier:
        """Load the classifier of a verified bundle.

        Args:
            device, compute_dtype, base: as in `grocer.inference.scorer.Scorer.load`.

        Raises:
            ModelError: a model is missing or invalid, or the adapter was trained on another base.
        """
        combination = Manifest.read(bundle).combination
        scorer = None
        if combination.uses_adapter:
            from grocer.inference.scorer import Scorer

            scorer = Scorer.load(
                bundle,
                token_budget=token_budget,
                device=device,
                compute_dtype=compute_dtype,
                base=base,
            )
        linear = LinearModel.load(bundle) if combination.uses_linear else None
        return cls(combination, scorer, linear)

    def predict(self, names: Sequence[str]) -> Scores:
        """Return the scores of product names; see `score`."""
        return self.score(self.encode(names))

    def encode(self, names: Sequence[str]) -> list[EncodedProduct]:
        """Compute the linear model's probabilities; tokenize the names that need the adapter."""
        alone, linear_log = np.zeros(len(names), dtype=bool), None
        if self.linear is not None:
            linear_log = self.linear.log_probabilities(names)
            alone = linear_answers(self.combination, linear_log)
        rest = [name for name, answered in zip(names, alone, strict=True) if not answered]
        tokenized = iter(self.scorer.encode(rest) if self.scorer is not None else ())
        products = []
        for row, name in enumerate(names):
            product = EncodedProduct(name, (), 0) if alone[row] else next(tokenized)
            if linear_log is not None:
                product = product._replace(linear_log=linear_log[row])
            products.append(product)
        return products

    def score(self, products: Sequence[EncodedProduct]) -> Scores:
        """Return calibrated probabilities; aisles take a second forward pass per batch.

        Raises:
            ModelError: a logit is not finite; the message names the product.
        """
        probabilities = self.probabilities(products)
        if self.scorer is None or not self.leaves:
            return Scores.flat(self.labels, probabilities)
        conditional = self.scorer.leaf_log_probabilities(products, probabilities.argmax(axis=1))
        leaves = leaf_probabilities(probabilities, conditional, self.combination.aisle_temperature)
        return Scores(self.labels, self.leaves, probabilities, leaves)

    def probabilities(
        self, products: Sequence[EncodedProduct], progress: Callable[[int], None] | None = None
    ) -> Floats:
        """Return calibrated probabilities [products, labels], without aisles.

        `progress` is called after each forward pass with the number of products that it has done.
        """
        adapter_log = linear_log = None
        if self.scorer is not None:
            adapter_log = np.full((len(products), len(self.labels)), np.nan)
            rows = [row for row, product in enumerate(products) if product.tokens]
            scored = [products[row] for row in rows]
            adapter_log[rows] = self.scorer.log_probabilities(scored, progress)
        if self.linear is not None:
            logs = [product.linear_log for product in products]
            linear_log = np.reshape(np.array(logs, dtype=np.float64), (-1, len(self.labels)))
        return combine(self.combination, adapter_log, linear_log)

    def check(self, name: str) -> None:
        """Score a name with every model; raise the error of a model that fails."""
        if self.scorer is not None:
            self.scorer.log_probabilities(self.scorer.encode([name]))
        if self.linear is not None:
            self.linear.log_probabilities([name])


def load_for_serving(
    bundle: LoadedBundle, *, token_budget: int | None = None, base: Path | None = None
) -> Classifier:
    """Load the classifier of a bundle; leave one CPU core to the work around it.

    Args:
        token_budget: by default that of the bundle's configuration.

    Raises:
        ModelError: as `Classifier.load`.
        BundleError: a file was changed since the bundle was verified.
    """
    config = bundle.manifest.config
    if bundle.manifest.combination.uses_adapter:
        import torch

        from grocer.model.device import cpu_threads

        torch.set_num_threads(cpu_threads(spare=1))
    classifier = Classifier.load(
        bundle.path,
        token_budget=token_budget or config.serving.token_budget,
        compute_dtype=config.base.compute_dtype,
        base=base,
    )
    bundle.require_unchanged()
    return classifier
