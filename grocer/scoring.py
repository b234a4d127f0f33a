"""The probability of every label for every product, by constrained decoding in one pass a batch.

The instruction's keys and values are computed once. Products are packed behind them, each with
the few trie tokens that lead to a branching node, so a product costs the tokens of its name and
little more. Evaluation and serving both call this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grocer import hardware, models
from grocer.calibration import apply_temperature
from grocer.encoding import Encoder
from grocer.errors import ModelError
from grocer.files import read_json
from grocer.packing import Pack, additive, batches, pack, visible
from grocer.prompts import Template
from grocer.settings import BaseConfig

Progress = Callable[[int, int], None]


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
        token_budget: int = 1024,
    ) -> None:
        self.model, self.encoder = model.eval(), encoder
        self.temperature, self.token_budget = temperature, token_budget
        self.trie = encoder.trie
        self._tuned = True
        self._instruction: Any = None
        self._dtype = model.get_input_embeddings().weight.dtype
        self._extra_visible = torch.from_numpy(self.trie.ancestors())

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
                `labels.json` and `template.json`; a bundle has `bundle.json` too.
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
        )
        record = model / "bundle.json"
        temperature = read_json(record)["calibration"]["temperature"] if record.is_file() else 1.0
        return cls(loaded, encoder, temperature=temperature, token_budget=token_budget)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label set, in the order of every result's columns."""
        return self.encoder.labels

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
        """[names, labels]: calibrated probabilities; rows sum to 1."""
        return apply_temperature(self.log_probabilities(names, progress), self.temperature)

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
        extra = len(self.trie.tokens)
        tails = self.encoder.tails(names)
        result = np.empty((len(names), len(self.labels)))
        for batch in batches([len(tail) + extra for tail in tails], self.token_budget):
            logits = self._edge_logits([tails[i] for i in batch])
            if not np.isfinite(logits).all():
                raise self._not_finite(batch, tails, names)
            result[batch.start : batch.stop] = self.trie.log_probabilities(logits)
            if progress is not None:
                progress(batch.stop, len(names))
        return result

    def _edge_logits(self, tails: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """[products, edges]: the logits that the trie asks for, in one forward pass."""
        trie, extra = self.trie, len(self.trie.tokens)
        packed = pack((), [[*tail, *trie.tokens] for tail in tails])
        allowed = visible(packed.segments)
        ends = [int(row) + 1 for row in packed.rows]
        for end in ends:
            allowed[end - extra : end, end - extra : end] = self._extra_visible
        at_root = torch.tensor([end - extra - 1 for end in ends])
        nodes = torch.tensor(trie.nodes)
        # Row of each product's each branching node: the root is the last token of its tail.
        rows = at_root[:, None] + 1 + nodes[None, :]
        logits = self._forward(packed, self._positions(packed, tails), allowed, rows.flatten())
        at_nodes = logits.view(len(tails), len(trie.nodes), -1)
        edges = at_nodes[:, torch.from_numpy(trie.edge_node), torch.from_numpy(trie.edge_token)]
        numbers: NDArray[np.float64] = edges.double().cpu().numpy()
        return numbers

    def _positions(self, packed: Pack, tails: Sequence[Sequence[int]]) -> Tensor:
        """[1, T]: after the instruction, and by depth in the trie after the tail."""
        depths = torch.tensor(self.trie.depths, dtype=torch.long)
        parts = []
        for tail in tails:
            parts += [torch.arange(len(tail)), len(tail) - 1 + depths]
        return torch.cat(parts)[None] + len(self.encoder.prefix)

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

    def _not_finite(
        self, batch: range, tails: Sequence[Sequence[int]], names: Sequence[str]
    ) -> ModelError:
        """Names the item: in a pack one NaN spoils all, since even a weight of 0 passes it on."""
        alone = (i for i in batch if not np.isfinite(self._edge_logits([tails[i]])).all())
        item = next(alone, batch.start)
        return ModelError(
            f"item {item} ({names[item]!r}): the model's logits are not finite; "
            "try base.compute_dtype=float32, or train with a lower learning rate"
        )
