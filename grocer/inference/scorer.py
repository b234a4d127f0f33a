"""Score products by constrained decoding: the probability of every label, one pass per batch.

If labels have aisles, a second pass chooses among the aisles of one label. Evaluation uses this
class, and serving as part of `grocer.inference.classifier`.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np

from grocer.config.stages import BaseConfig
from grocer.errors import ModelError
from grocer.inference.prefix_cache import PrefixCachedModel, TrieQuery
from grocer.inference.scores import EncodedProduct
from grocer.io.atomic import read_json
from grocer.model.base import load_adapter, load_nf4, load_tokenizer
from grocer.model.combination import Floats, Ints
from grocer.model.device import choose_compute_dtype, choose_device
from grocer.model.hierarchy import Leaf, read_aisles
from grocer.model.prompts.template import Template
from grocer.model.prompts.tokenization import Encoder
from grocer.model.sources.find import BaseReference, find_base


class Scorer:
    """A base model with an adapter that assigns a probability to every label.

    Not thread-safe. `token_budget`, as in `PrefixCachedModel`, bounds the memory.
    """

    def __init__(self, model: Any, encoder: Encoder, *, token_budget: int = 1024) -> None:
        self.model, self.encoder = model.eval(), encoder
        self.trie = encoder.trie
        self.labels: tuple[str, ...] = encoder.labels
        """The label set, in column order."""
        self.leaves: tuple[Leaf, ...] = encoder.leaves
        """Every label with each of its aisles, in column order; empty with one level of labels."""
        tries = [self.trie, *(each.trie for each in encoder.completions if each.trie)]
        self.prefix_cached = PrefixCachedModel(self.model, encoder.prefix, tries, token_budget)

    @classmethod
    def load(
        cls,
        model: Path,
        *,
        token_budget: int = 1024,
        device: str = "auto",
        compute_dtype: str = "auto",
        base: Path | None = None,
        with_adapter: bool = True,
    ) -> Self:
        """Load the adapter of a train artifact or of a bundle.

        Args:
            model: directory of the artifact; or of a bundle, which has the files of `adapter/`
                beside its other files.
            device, compute_dtype: as in `BaseConfig`.
            base: directory or GGUF file of the base; by default `base/` beside the adapter, or
                what `base.json` names.
            with_adapter: false loads the base alone, with the adapter's labels and template.

        Raises:
            ModelError: the base is missing, or the adapter was trained on another one.
        """
        directory = base or (model / "base" if (model / "base").is_dir() else None)
        directory = _matching_base(BaseReference(**read_json(model / "base.json")), directory)
        device = choose_device(device)
        dtype, _ = choose_compute_dtype(compute_dtype, device)
        # Of a bundle, only verified files are read: a directory could be added, and removed before
        # the check after the load.
        adapter = model if (model / "adapter_config.json").is_file() else model / "adapter"
        encoder = Encoder(
            load_tokenizer(adapter),
            Template(**read_json(model / "template.json")),
            read_json(model / "labels.json"),
            read_aisles(model),
        )
        loaded = load_nf4(directory, dtype, device)
        if with_adapter:
            loaded = load_adapter(loaded, adapter)
        return cls(loaded, encoder, token_budget=token_budget)

    def encode(self, names: Sequence[str]) -> list[EncodedProduct]:
        """Tokenize product names."""
        pairs = zip(names, self.encoder.suffixes(names), strict=True)
        extra = len(self.trie.tokens)
        return [EncodedProduct(name, suffix, len(suffix) + extra) for name, suffix in pairs]

    def log_probabilities(
        self, products: Sequence[EncodedProduct], progress: Callable[[int], None] | None = None
    ) -> Floats:
        """Return log-probabilities [products, labels] before calibration.

        `progress` is called after each forward pass with the number of products done.
        """
        result, done = np.empty((len(products), len(self.labels))), 0
        queries = [TrieQuery(i, p.name, p.suffix, self.trie) for i, p in enumerate(products)]
        for batch, logits in self.prefix_cached.edge_logits(queries):
            rows = [query.item for query in batch]
            result[rows] = self.trie.log_probabilities(np.stack(logits))
            done += len(batch)
            if progress is not None:
                progress(done)
        return result

    def leaf_log_probabilities(self, products: Sequence[EncodedProduct], labels: Ints) -> Floats:
        """Return log P(aisle | label) [products, leaves] before calibration.

        Args:
            labels: int64 [products], the index of one label each; the aisles of others get -inf.
        """
        result = np.full((len(products), len(self.leaves)), -np.inf)
        ends = np.cumsum([len(each.aisles) for each in self.encoder.completions]).tolist()
        columns = [slice(start, end) for start, end in pairwise([0, *ends])]
        queries = []
        for row, (product, label) in enumerate(zip(products, labels, strict=True)):
            completions = self.encoder.completions[label]
            if completions.trie is None:
                # No aisle, or a single one, whose conditional probability is 1.
                result[row, columns[label]] = 0.0
                continue
            suffix = [*product.suffix, *completions.prefix]
            queries.append(TrieQuery(row, product.name, suffix, completions.trie))
        for batch, logits in self.prefix_cached.edge_logits(queries):
            for query, edges in zip(batch, logits, strict=True):
                inside = columns[labels[query.item]]
                result[query.item, inside] = query.trie.log_probabilities(edges[None])[0]
        return result


def _matching_base(reference: BaseReference, given: Path | None) -> Path:
    """Return the directory of the given base, or of the referenced one; verify its digest."""
    source = reference.source if given is None else str(given.absolute())
    directory, found = find_base(BaseConfig(source=source))
    if found.digest != reference.digest:
        raise ModelError(
            f"{given or directory} is not the base that the adapter was trained on: its digest is "
            f"{found.digest[:12]}, expected {reference.digest[:12]}"
        )
    return directory
