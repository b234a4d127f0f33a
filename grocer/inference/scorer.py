"""The probability of every label for every product, by constrained decoding in one pass a batch.

Where labels have aisles, a second pass chooses among those of the likeliest label: each product
then has a trie of its own. Evaluation and serving both call this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grocer.config.stages import BaseConfig
from grocer.errors import ModelError
from grocer.inference.prefix_cache import Choice, Passes
from grocer.io.atomic import read_json
from grocer.model import base as models
from grocer.model import device as hardware
from grocer.model.calibration import apply_temperature
from grocer.model.hierarchy import Leaf, of_likeliest, read_aisles
from grocer.model.prompt_template import Template
from grocer.model.tokenization import Encoder

Progress = Callable[[int, int], None]


class Product(NamedTuple):
    """A name ready to be scored: its prompt's ids behind the instruction.

    `tokens` is what it adds to the first forward pass.
    """

    name: str
    tail: Sequence[int]
    tokens: int


class Scorer:
    """A base with an adapter that gives each product a probability for each label.

    Not safe for threads: one thread owns it. Memory is bounded by `token_budget`, the tokens of
    one forward pass (a single longer product still goes through, alone).
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        *,
        temperature: float = 1.0,
        aisle_temperature: float = 1.0,
        token_budget: int = 1024,
    ) -> None:
        self.model, self.encoder = model.eval(), encoder
        self.temperature, self.aisle_temperature = temperature, aisle_temperature
        self.trie = encoder.trie
        tries = [self.trie, *(shelf.trie for shelf in encoder.shelves if shelf.trie)]
        self.passes = Passes(self.model, encoder.prefix, tries, token_budget)

    @classmethod
    def load(
        cls,
        model: Path,
        *,
        token_budget: int = 1024,
        device: str = "auto",
        compute_dtype: str = "auto",
        base: Path | None = None,
    ) -> Scorer:
        """Load what `train` wrote, or a bundle.

        Args:
            model: directory with the adapter (flat, or in `adapter/`), `base.json`,
                `labels.json`, `template.json` and, where labels have aisles, `aisles.json`; a
                bundle has `bundle.json` too.
            token_budget: tokens of one forward pass.
            device: `auto`, `cpu` or `cuda`.
            compute_dtype: as `BaseConfig.compute_dtype`.
            base: directory of the base; by default `base/` beside the adapter, or what
                `base.json` names.

        Raises:
            ModelError: the base is absent, or is not the one that the adapter was trained on.
        """
        adapter = model / "adapter" if (model / "adapter").is_dir() else model
        reference = models.BaseReference.read(model / "base.json")
        directory = base or (model / "base" if (model / "base").is_dir() else None)
        if directory is None:
            settings = BaseConfig(source=reference.source, revision=reference.revision)
            directory, found = models.find_base(settings)
            digest = found.digest
        else:
            digest = models.base_digest(directory)
        if digest != reference.digest:
            raise ModelError(
                f"{directory} is not the base that the adapter was trained on: its digest is "
                f"{digest[:12]}, the adapter's is {reference.digest[:12]}"
            )
        device = hardware.choose_device(device)
        dtype, _ = hardware.choose_compute_dtype(compute_dtype, device)
        loaded = models.load_adapter(models.load_nf4(directory, dtype, device), adapter)
        encoder = Encoder(
            models.load_tokenizer(adapter),
            Template(**read_json(model / "template.json")),
            read_json(model / "labels.json"),
            read_aisles(model),
        )
        record = model / "bundle.json"
        calibration = read_json(record)["calibration"] if record.is_file() else {}
        return cls(loaded, encoder, **calibration, token_budget=token_budget)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label set, in the order of every result's columns."""
        return self.encoder.labels

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The aisles of all labels, in the order of their columns; none: there is one level."""
        return self.encoder.leaves

    def products(self, names: Sequence[str]) -> list[Product]:
        """Tokenise: what `score` takes."""
        pairs = zip(names, self.encoder.tails(names), strict=True)
        return [Product(name, tail, len(tail) + len(self.trie.tokens)) for name, tail in pairs]

    @contextmanager
    def untuned(self) -> Iterator[None]:
        """Score with the base alone."""
        self.passes.forget()
        try:
            with self.model.disable_adapter():
                yield
        finally:
            self.passes.forget()

    def probabilities(self, names: Sequence[str]) -> NDArray[np.float64]:
        """[names, labels (+ leaves)]: see `score`."""
        return self.score(self.products(names))

    def score(self, products: Sequence[Product]) -> NDArray[np.float64]:
        """[products, labels]: calibrated probabilities; rows sum to 1.

        Where labels have aisles, [products, labels + leaves]: behind them the probability of each
        aisle of the likeliest label, which together have that label's. Those of other labels are
        not asked for, and 0. It takes a second forward pass a batch.

        Raises:
            ModelError: a logit is not finite; the message names the product.
        """
        found = apply_temperature(self._log_labels(products), self.temperature)
        if not self.leaves:
            return found
        within = self._log_aisles(products, found.argmax(axis=1))
        return np.hstack([found, of_likeliest(found, within, self.aisle_temperature)])

    def log_probabilities(
        self, names: Sequence[str], progress: Progress | None = None
    ) -> NDArray[np.float64]:
        """[names, labels]: log-probabilities of constrained decoding, before calibration.

        Args:
            names: product names, raw.
            progress: called with (products done, products in all) after each forward pass.

        Raises:
            ModelError: a logit is not finite; the message names the product.
        """
        return self._log_labels(self.products(names), progress)

    def aisle_log_probabilities(
        self,
        names: Sequence[str],
        labels: Sequence[int] | NDArray[np.int64],
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """[names, leaves]: log-probabilities within the label given for each name, -inf outside.

        Before calibration. `labels` are places in the label set.

        Raises:
            ModelError: as above.
        """
        return self._log_aisles(self.products(names), labels, progress)

    def _log_labels(
        self, products: Sequence[Product], progress: Progress | None = None
    ) -> NDArray[np.float64]:
        result = np.empty((len(products), len(self.labels)))
        choices = [Choice(i, name, tail, self.trie) for i, (name, tail, _) in enumerate(products)]
        for batch, logits in self.passes.logits(choices):
            result[batch.start : batch.stop] = self.trie.log_probabilities(np.stack(logits))
            if progress is not None:
                progress(batch.stop, len(products))
        return result

    def _log_aisles(
        self,
        products: Sequence[Product],
        labels: Sequence[int] | NDArray[np.int64],
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        result = np.full((len(products), len(self.leaves)), -np.inf)
        ends = np.cumsum([len(shelf.aisles) for shelf in self.encoder.shelves])
        choices = []
        for row, label in enumerate(labels):
            shelf = self.encoder.shelves[label]
            if shelf.trie is None:  # one aisle or none
                result[row, ends[label] - len(shelf.aisles) : ends[label]] = 0.0
                continue
            name, tail, _ = products[row]
            choices.append(Choice(row, name, [*tail, *shelf.stem], shelf.trie))
        for batch, logits in self.passes.logits(choices):
            for i, asked in zip(batch, logits, strict=True):
                row, trie = choices[i].item, choices[i].trie
                inside = slice(ends[labels[row]] - len(trie.labels), ends[labels[row]])
                result[row, inside] = trie.log_probabilities(asked[None])[0]
            if progress is not None:
                progress(batch.stop, len(choices))
        return result
