"""Attention of packed products: each attends to the shared prefix and to itself only.

The usual way, one sequence with a block-diagonal mask, computes attention between all pairs of
tokens of a pack and discards most of it. This one gathers the tokens of each product into its own
row, so the work grows with the number of products and not with its square. Results are equal up
to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "grocer_packed"
"""Name of the attention implementation in transformers."""


@dataclass(frozen=True)
class PackLayout:
    """Where the tokens of B products, of at most L tokens each, are in padded rows."""

    positions: Tensor
    """int64 [T]: index in [B * L] of each token after the prefix."""
    mask: Tensor
    """bool [B, L, P + L]: the prefix tokens and own tokens that each token attends to."""


def pack_layout(sizes: Tensor, prefix: int) -> PackLayout:
    """Return the layout of a pack in which tokens attend to the prefix and to earlier own tokens.

    Args:
        sizes: int64 [B], the number of each product's tokens.
        prefix: number of tokens of the prefix, P.
    """
    products, longest, device = len(sizes), int(sizes.max()), sizes.device
    steps = torch.arange(longest, device=device)
    positions = torch.nonzero((steps < sizes[:, None]).flatten()).flatten()
    own = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
    before = own.new_ones(longest, prefix)
    mask = torch.cat([before, own], dim=1).repeat(products, 1, 1)
    return PackLayout(positions, mask)


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    layout: PackLayout | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Return the attention outputs [1, tokens, heads, size], as transformers expects them.

    The first keys are those of the prefix; its queries are absent if the prefix is cached. Without
    a layout this is ordinary attention.

    Args:
        query: [1, heads, tokens, size].
        key, value: [1, key-value heads, prefix + tokens after it, size].
    """
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **arguments
        )
        return output, None
    products, longest, width = layout.mask.shape
    prefix, (_, heads, tokens, size), shared = width - longest, query.shape, key.shape[1]
    queried = tokens - len(layout.positions)  # prefix tokens whose outputs are required

    def rows(states: Tensor) -> Tensor:
        """[heads, tokens after the prefix, size] as [B, heads, L, size], padded with 0."""
        padded = states.new_zeros(products * longest, len(states), size)
        padded = padded.index_copy(0, layout.positions, states.transpose(0, 1))
        return padded.view(products, longest, len(states), size).transpose(1, 2)

    def after_prefix(states: Tensor) -> Tensor:
        """[heads, prefix + tokens, size] as [B, heads, P + L, size]."""
        before = states[:, :prefix].expand(products, -1, -1, -1)
        return torch.cat([before, rows(states[:, prefix:])], dim=2)

    # Plain matrix products: torch's fused kernel is slow for many short rows on a CPU. The heads
    # that share keys are one matrix.
    grouped = rows(query[0, :, queried:] * scaling).reshape(products, shared, -1, size)
    scores = (grouped @ after_prefix(key[0]).transpose(2, 3)).float()
    scores = scores.view(products, heads, longest, width)
    scores = scores.masked_fill(~layout.mask[:, None], torch.finfo(torch.float32).min)
    weights = scores.softmax(dim=-1).to(value.dtype).view(products, shared, -1, width)
    output = (weights @ after_prefix(value[0])).view(products, heads, longest, size)
    output = output.transpose(1, 2).reshape(-1, heads, size).index_select(0, layout.positions)[None]
    if queried:
        first = scaled_dot_product_attention(
            query[:, :, :queried],
            key[:, :, :queried],
            value[:, :, :queried],
            is_causal=True,
            scale=scaling,
            enable_gqa=True,
        )
        output = torch.cat([first.transpose(1, 2), output], dim=1)
    return output.contiguous(), None


def use_packed_attention(model: Any) -> None:
    """Let a transformers model compute attention with `packed_attention`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def packed_forward(
    model: Any, packed: Mapping[str, Tensor], layout: PackLayout, rows: Tensor, **arguments: Any
) -> Any:
    """Return the model's outputs with the logits of `rows` only, [1, rows, vocabulary].

    Args:
        model: a model after `use_packed_attention`.
        packed: `input_ids` and `position_ids` of a `Pack`.
        layout: on the model's device.
        rows: int64, indices of tokens.
    """
    ids = packed["input_ids"]
    return model(
        input_ids=ids,
        position_ids=packed["position_ids"],
        # A mask in four dimensions keeps transformers from making one; the layout replaces it.
        attention_mask=torch.zeros(1, 1, 1, 1, device=ids.device),
        logits_to_keep=rows,
        layout=layout,
        **arguments,
    )
