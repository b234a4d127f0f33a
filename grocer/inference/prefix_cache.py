"""Forward passes that put many choices to a model at once, behind one cached instruction.

The instruction's keys and values are computed once. Choices are packed behind them, each with
the few trie tokens that lead to a branching node, so one costs the tokens of its own text and
little more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grocer.errors import ModelError
from grocer.model.label_trie import LabelTrie
from grocer.model.packing import Pack, additive, batches, pack, visible


class Choice(NamedTuple):
    """A choice among a trie's labels, put to the model behind the instruction and `tail`."""

    item: int
    name: str
    tail: Sequence[int]
    trie: LabelTrie


class Passes:
    """A model behind an instruction.

    Args:
        model: a causal language model.
        prefix: token ids of the instruction, which every choice shares.
        tries: all that choices will be made among.
        token_budget: tokens of one forward pass; a single longer choice goes alone.
    """

    def __init__(
        self, model: Any, prefix: Sequence[int], tries: Sequence[LabelTrie], token_budget: int
    ) -> None:
        self.model, self.prefix, self.token_budget = model, prefix, token_budget
        self._instruction: Any = None
        self._dtype = model.get_input_embeddings().weight.dtype
        self._visible = {id(trie): torch.from_numpy(trie.ancestors()) for trie in tries}

    def logits(
        self, choices: Sequence[Choice]
    ) -> Iterator[tuple[range, list[NDArray[np.float64]]]]:
        """Passes over consecutive choices, and for each of these the logits [edges] of its trie.

        Raises:
            ModelError: a logit is not finite; the message names the choice's product.
        """
        sizes = [len(choice.tail) + len(choice.trie.tokens) for choice in choices]
        for batch in batches(sizes, self.token_budget):
            logits = self._of_edges([choices[i] for i in batch])
            if not all(np.isfinite(found).all() for found in logits):
                raise self._not_finite(batch, choices)
            yield batch, logits

    def forget(self) -> None:
        """Compute the instruction anew: the model is another one now."""
        self._instruction = None

    def _of_edges(self, choices: Sequence[Choice]) -> list[NDArray[np.float64]]:
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
        return torch.from_numpy(np.concatenate(parts))[None] + len(self.prefix)

    def _forward(self, packed: Pack, positions: Tensor, allowed: Tensor, rows: Tensor) -> Tensor:
        """[rows, vocabulary] logits of a pack behind the cached instruction."""
        device = self.model.device
        before = torch.ones(len(allowed), len(self.prefix), dtype=torch.bool)
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
            if self.prefix:
                ids = torch.tensor([self.prefix], device=self.model.device)
                with torch.inference_mode():
                    self.model(
                        input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1
                    )
            self._instruction = cache
        return self._instruction

    def _not_finite(self, batch: range, choices: Sequence[Choice]) -> ModelError:
        """Names the item: in a pack one NaN spoils all, since even a weight of 0 passes it on."""
        alone = (i for i in batch if not np.isfinite(self._of_edges([choices[i]])[0]).all())
        choice = choices[next(alone, batch.start)]
        return ModelError(
            f"item {choice.item} ({choice.name!r}): the model's logits are not finite; "
            "try base.compute_dtype=float32, or train with a lower learning rate"
        )
