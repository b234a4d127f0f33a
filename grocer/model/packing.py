"""Shared-prefix packing: one instruction and many products in one sequence.

    prefix  | product 1 | product 2 | ...
    0 .. P-1| P ..      | P ..      |        positions
    each product attends to the prefix and to itself, so the result is that of one by one

Losses, gradients and probabilities equal those of separate sequences (to rounding) where
dropout is 0; with dropout, the products of a pack share the prefix's mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class Pack:
    """One packed sequence, batch dimension included.

    `segments` [T] is -1 in the prefix and i in product i; `position_ids` restart at the
    prefix's length with each product. `rows` are the indices of each product's last token.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: Tensor
    rows: Tensor


def pack(prefix: Sequence[int], tails: Sequence[Sequence[int]]) -> Pack:
    """Put `tails` behind one `prefix` (which may be empty where it is cached)."""
    ids = [*prefix, *(token for tail in tails for token in tail)]
    segments = [-1] * len(prefix) + [i for i, tail in enumerate(tails) for _ in tail]
    positions = [*range(len(prefix))]
    rows, end = [], len(prefix)
    for tail in tails:
        positions.extend(range(len(prefix), len(prefix) + len(tail)))
        end += len(tail)
        rows.append(end - 1)
    return Pack(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        segments=torch.tensor(segments),
        rows=torch.tensor(rows),
    )


def visible(segments: Tensor) -> Tensor:
    """[T, T] bool: which key (column) a query (row) may attend to.

    Args:
        segments: [T], -1 for the prefix and i for product i, as in `Pack`.
    """
    own = segments[:, None] == segments[None, :]
    shared = segments[None, :] == -1
    causal = torch.ones(len(segments), len(segments), dtype=torch.bool, device=segments.device)
    return (own | shared) & causal.tril()


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask that attention adds: [Q, K] bool to [1, 1, Q, K] of `dtype`.

    A boolean mask would be wrong with eager attention, which adds whatever it is given.
    """
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[None, None]


def batches(lengths: Sequence[int], budget: int) -> Iterator[range]:
    """Consecutive runs whose lengths sum to at most `budget`; a longer item goes alone."""
    start = used = 0
    for index, length in enumerate(lengths):
        if index > start and used + length > budget:
            yield range(start, index)
            start, used = index, 0
        used += length
    if start < len(lengths):
        yield range(start, len(lengths))
