"""Attention of packed products: each attends to the shared prefix and to itself only.

The usual way, one sequence with a block-diagonal mask, computes attention between all pairs of
tokens of a pack and discards most of it. This one gathers the tokens of each product into its own
row, so the work grows with the number of products and not with its square. Results are equal up
to rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
    prefix, (_, _, tokens, size) = width - longest, query.shape
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

    query = query * scaling
    output = _attend(
        rows(query[0, :, queried:]), after_prefix(key[0]), after_prefix(value[0]), layout.mask
    )
    output = output.flatten(0, 1).index_select(0, layout.positions)[None]
    if queried:
        causal = layout.mask.new_ones(1, queried, queried).tril()
        first = _attend(query[:, :, :queried], key[:, :, :queried], value[:, :, :queried], causal)
        output = torch.cat([first, output], dim=1)
    return output.contiguous(), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Return the attention outputs [B, L, heads, size] of scaled queries [B, heads, L, size].

    Plain matrix products: the backward pass of torch's fused kernel is slow for short rows on a
    CPU. The heads that share keys are one matrix.

    Args:
        key, value: [B, key-value heads, W, size].
        mask: bool [B, L, W], true where a token attends.
    """
    batch, heads, length, size = query.shape
    shared, width = key.shape[1:3]
    scores = (query.reshape(batch, shared, -1, size) @ key.transpose(2, 3)).float()
    scores = scores.view(batch, heads, length, width)
    scores = scores.masked_fill(~mask[:, None], torch.finfo(torch.float32).min)
    weights = scores.softmax(dim=-1).to(value.dtype).view(batch, shared, -1, width)
    return (weights @ value).view(batch, heads, length, size).transpose(1, 2)


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
