"""The probability of every label for every product, by constrained decoding in one pass a batch.

The instruction's keys and values are computed once. Products are packed behind them, each with
the few trie tokens that lead to a branching node, so a product costs the tokens of its name and
little more. Where labels have aisles, a second pass chooses among those of the likeliest label:
each product then has a trie of its own. Evaluation and serving both call this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grocer import hardware, models
from grocer.calibration import apply_temperature
from grocer.encoding import Encoder
from grocer.errors import ModelError
from grocer.files import read_json
from grocer.labels import LabelTrie
from grocer.levels import Leaf, of_likeliest, read_aisles
from grocer.packing import Pack, additive, batches, pack, visible
from grocer.prompts import Template
from grocer.settings import BaseConfig

Progress = Callable[[int, int], None]


class Choice(NamedTuple):
    """A choice among a trie's labels, put to the model behind the instruction and `tail`."""

    item: int
    name: str
    tail: Sequence[int]
    trie: LabelTrie


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
        self.token_budget = token_budget
        self.trie = encoder.trie
        self._tuned = True
        self._instruction: Any = None
        self._dtype = model.get_input_embeddings().weight.dtype
        tries = [self.trie, *(shelf.trie for shelf in encoder.shelves if shelf.trie)]
        self._visible = {id(trie): torch.from_numpy(trie.ancestors()) for trie in tries}

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

    def tokens(self, name: str) -> int:
        """Tokens that a product adds to a forward pass."""
        return len(self.encoder.tails([name])[0]) + len(self.trie.tokens)

    @contextmanager
    def untuned(self) -> Iterator[None]:
        """Score with the base alone."""
        self._tuned, self._instruction = False, None
        try:
            with self.model.disable_adapter():
                yield
        finally:
            self._tuned, self._instruction = True, None

    def probabilities(
        self, names: Sequence[str], progress: Progress | None = None
    ) -> NDArray[np.float64]:
        """[names, labels]: calibrated probabilities; rows sum to 1.

        Where labels have aisles, [names, labels + leaves]: behind them the probability of each
        aisle of the likeliest label, which together have that label's. Those of other labels are
        not asked for, and 0. It takes a second forward pass a batch.
        """
        tails = self.encoder.tails(names)
        found = apply_temperature(self._log_labels(names, tails, progress), self.temperature)
        if not self.leaves:
            return found
        within = self._log_aisles(names, tails, found.argmax(axis=1))
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
        return self._log_labels(names, self.encoder.tails(names), progress)

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
        return self._log_aisles(names, self.encoder.tails(names), labels, progress)

    def _log_labels(
        self, names: Sequence[str], tails: Sequence[Sequence[int]], progress: Progress | None
    ) -> NDArray[np.float64]:
        result = np.empty((len(names), len(self.labels)))
        pairs = enumerate(zip(names, tails, strict=True))
        choices = [Choice(i, name, tail, self.trie) for i, (name, tail) in pairs]
        for batch, logits in self._passes(choices):
            result[batch.start : batch.stop] = self.trie.log_probabilities(np.stack(logits))
            if progress is not None:
                progress(batch.stop, len(names))
        return result

    def _log_aisles(
        self,
        names: Sequence[str],
        tails: Sequence[Sequence[int]],
        labels: Sequence[int] | NDArray[np.int64],
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        result = np.full((len(names), len(self.leaves)), -np.inf)
        ends = np.cumsum([len(shelf.aisles) for shelf in self.encoder.shelves])
        choices = []
        for row, label in enumerate(labels):
            shelf = self.encoder.shelves[label]
            if shelf.trie is None:  # one aisle or none
                result[row, ends[label] - len(shelf.aisles) : ends[label]] = 0.0
                continue
            choices.append(Choice(row, names[row], [*tails[row], *shelf.stem], shelf.trie))
        for batch, logits in self._passes(choices):
            for i, asked in zip(batch, logits, strict=True):
                row, trie = choices[i].item, choices[i].trie
                inside = slice(ends[labels[row]] - len(trie.labels), ends[labels[row]])
                result[row, inside] = trie.log_probabilities(asked[None])[0]
            if progress is not None:
                progress(batch.stop, len(choices))
        return result

    def _passes(
        self, choices: Sequence[Choice]
    ) -> Iterator[tuple[range, list[NDArray[np.float64]]]]:
        """Forward passes over consecutive choices, and the logits of each one's edges."""
        sizes = [len(choice.tail) + len(choice.trie.tokens) for choice in choices]
        for batch in batches(sizes, self.token_budget):
            logits = self._edge_logits([choices[i] for i in batch])
            if not all(np.isfinite(found).all() for found in logits):
                raise self._not_finite(batch, choices)
            yield batch, logits

    def _edge_logits(self, choices: Sequence[Choice]) -> list[NDArray[np.float64]]:
        """The logits that each choice's trie asks for, [edges] each, in one forward pass."""
        packed = pack((), [[*choice.tail, *choice.trie.tokens] for choice in choices])
        allowed = visible(packed.segments)
        nodes, edge_rows, edge_tokens, taken = [], [], [], 0
        for choice, row in zip(choices, packed.rows.tolist(), strict=True):
            trie, end = choice.trie, row + 1
            begin = end - len(trie.tokens)
            allowed[begin:end, begin:end] = self._visible[id(trie)]
            # The root is the last token of the tail.
            nodes.append(np.array(trie.nodes) + begin)
            edge_rows.append(trie.edge_node + taken)
            edge_tokens.append(trie.edge_token)
            taken += len(trie.nodes)
        rows = torch.from_numpy(np.concatenate(nodes))
        logits = self._forward(packed, self._positions(choices), allowed, rows)
        edges = logits[
            torch.from_numpy(np.concatenate(edge_rows)),
            torch.from_numpy(np.concatenate(edge_tokens)),
        ]
        numbers: NDArray[np.float64] = edges.double().cpu().numpy()
        return np.split(numbers, np.cumsum([len(tokens) for tokens in edge_tokens])[:-1])

    def _positions(self, choices: Sequence[Choice]) -> Tensor:
        """[1, T]: after the instruction, and by depth in the trie after the tail."""
        parts = []
        for choice in choices:
            size = len(choice.tail)
            depths = np.array(choice.trie.depths, dtype=np.int64)
            parts += [np.arange(size), size - 1 + depths]
        return torch.from_numpy(np.concatenate(parts))[None] + len(self.encoder.prefix)

    def _forward(self, packed: Pack, positions: Tensor, allowed: Tensor, rows: Tensor) -> Tensor:
        """[rows, vocabulary] logits of a pack behind the cached instruction."""
        device, start = self.model.device, len(self.encoder.prefix)
        before = torch.ones(len(allowed), start, dtype=torch.bool)
        mask = additive(torch.cat([before, allowed], dim=1), self._dtype).to(device)
        cache, self._instruction = self._cache(), None
        with torch.inference_mode():
            output = self.model(
                input_ids=packed.input_ids.to(device),
                position_ids=positions.to(device),
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=rows.to(device),
            )
        cache.crop(-packed.input_ids.shape[1])
        # Kept only now: a pass that failed half way would leave its keys behind.
        self._instruction = cache
        logits: Tensor = output.logits[0]
        return logits

    def _cache(self) -> Any:
        """Keys and values of the instruction, computed on first use."""
        if self._instruction is None:
            from transformers import DynamicCache

            cache = DynamicCache(config=self.model.config)
            if self.encoder.prefix:
                ids = torch.tensor([self.encoder.prefix], device=self.model.device)
                with torch.inference_mode():
                    self.model(
                        input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1
                    )
            self._instruction = cache
        return self._instruction

    def _not_finite(self, batch: range, choices: Sequence[Choice]) -> ModelError:
        """Names the item: in a pack one NaN spoils all, since even a weight of 0 passes it on."""
        alone = (i for i in batch if not np.isfinite(self._edge_logits([choices[i]])[0]).all())
        choice = choices[next(alone, batch.start)]
        return ModelError(
            f"item {choice.item} ({choice.name!r}): the model's logits are not finite; "
            "try base.compute_dtype=float32, or train with a lower learning rate"
        )
