"""Batched forward passes with a cached prompt prefix.

The keys and values of the prefix are computed once. Products are packed after it, each with the
few trie tokens that lead to a branching node, so a product costs little more than the tokens of
its own name.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grocer.errors import ModelError
from grocer.model.attention import PackLayout, pack_layout, packed_forward, use_packed_attention
from grocer.model.label_trie import LabelTrie
from grocer.model.packing import Pack, pack, token_batches


class TrieQuery(NamedTuple):
    """One choice among the labels of a trie, after the prefix and `suffix`."""

    item: int  # index of the product; also named in error messages
    name: str
    suffix: Sequence[int]
    trie: LabelTrie


class PrefixCachedModel:
    """A causal language model with a cached prompt prefix.

    Args:
        model: a causal language model.
        prefix: token ids that every prompt starts with.
        tries: all tries that queries will use.
        token_budget: maximum tokens of one forward pass; a longer query gets its own pass.
    """

    def __init__(
        self, model: Any, prefix: Sequence[int], tries: Sequence[LabelTrie], token_budget: int
    ) -> None:
        self.model, self.prefix, self.token_budget = model, prefix, token_budget
        use_packed_attention(model)
        self._cached: Any = None
        self._trie_masks = {id(trie): torch.from_numpy(trie.ancestors()) for trie in tries}

    def edge_logits(
        self, queries: Sequence[TrieQuery]
    ) -> Iterator[tuple[list[TrieQuery], list[NDArray[np.float64]]]]:
        """Yield, per forward pass, some queries and their edge logits, float64 [edges] each.

        Raises:
            ModelError: a logit is not finite; the message names the product.
        """
        # Products of similar lengths need little padding in attention.
        ordered = sorted(queries, key=lambda query: len(query.suffix))
        sizes = [len(query.suffix) + len(query.trie.tokens) for query in ordered]
        for rows in token_batches(sizes, self.token_budget):
            batch = ordered[rows.start : rows.stop]
            logits = self._score(batch)
            if not all(np.isfinite(edges).all() for edges in logits):
                raise self._not_finite(batch)
            yield batch, logits

    def _score(self, queries: Sequence[TrieQuery]) -> list[NDArray[np.float64]]:
        """Return the edge logits of each query, from one forward pass."""
        packed = pack((), [[*query.suffix, *query.trie.tokens] for query in queries])
        layout = pack_layout(packed.sizes, len(self.prefix))
        positions, node_rows, edge_rows, edge_tokens, count = [], [], [], [], 0
        lasts = packed.last_tokens.tolist()
        for product, (query, last) in enumerate(zip(queries, lasts, strict=True)):
            trie, size = query.trie, len(query.suffix)
            own = layout.mask[product, :, len(self.prefix) :]
            own[size : size + len(trie.tokens), size : size + len(trie.tokens)] = self._trie_masks[
                id(trie)
            ]
            # The trie's tokens follow the suffix by their depth.
            positions += [np.arange(size), size - 1 + np.array(trie.depths, dtype=np.int64)]
            start = last + 1 - len(trie.tokens)
            # Node -1, the root, is the last token of the suffix.
            node_rows.append(np.array(trie.nodes) + start)
            edge_rows.append(trie.edge_node + count)
            edge_tokens.append(trie.edge_token)
            count += len(trie.nodes)
        rows = torch.from_numpy(np.concatenate(node_rows))
        position_ids = torch.from_numpy(np.concatenate(positions))[None] + len(self.prefix)
        logits = self._forward(packed, position_ids, layout, rows)
        edge_index = [torch.from_numpy(np.concatenate(i)) for i in (edge_rows, edge_tokens)]
        edges = logits[edge_index[0], edge_index[1]]
        values: NDArray[np.float64] = edges.double().cpu().numpy()
        return np.split(values, np.cumsum([len(tokens) for tokens in edge_tokens])[:-1])

    def _forward(self, packed: Pack, positions: Tensor, layout: PackLayout, rows: Tensor) -> Tensor:
        """Return the logits [rows, vocabulary] of a pack after the cached prefix."""
        device = self.model.device
        inputs = {"input_ids": packed.input_ids.to(device), "position_ids": positions.to(device)}
        layout = PackLayout(layout.positions.to(device), layout.mask.to(device))
        cache, self._cached = self._prefix_cache(), None
        with torch.inference_mode():
            output = packed_forward(
                self.model, inputs, layout, rows.to(device), past_key_values=cache, use_cache=True
            )
        cache.crop(-packed.input_ids.shape[1])
        # Set only after success: a failed pass leaves its own keys in the cache.
        self._cached = cache
        logits: Tensor = output.logits[0]
        return logits

    def _prefix_cache(self) -> Any:
        """Return the keys and values of the prefix; compute them on first use."""
        if self._cached is None:
            from transformers import DynamicCache

            # Without the configuration: a cache with a sliding window would drop the prefix.
            cache = DynamicCache()
            if self.prefix:
                ids = torch.tensor([self.prefix], device=self.model.device)
                with torch.inference_mode():
                    self.model(
                        input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1
                    )
            self._cached = cache
        return self._cached

    def _not_finite(self, batch: Sequence[TrieQuery]) -> ModelError:
        """Return an error that names the product; NaN spreads to all products of a pack."""
        invalid = (query for query in batch if not np.isfinite(self._score([query])[0]).all())
        query = next(invalid, batch[0])
        return ModelError(
            f"item {query.item} ({query.name!r}): the model's logits are not finite; "
            "try base.compute_dtype=float32, or train with a lower learning rate"
        )
