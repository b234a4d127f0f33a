"""Sequence packing with a shared prefix: one prompt prefix and many products in one sequence.

    prefix   | product 0 | product 1 | ...
    0 .. P-1 | P ..      | P ..      |        position ids

A product attends to the prefix and to itself, see `grocer.model.attention`. Losses, gradients and
probabilities equal those of separate sequences up to rounding if dropout is 0; with dropout, the
products of a pack share the prefix's dropout mask.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""Label of a token that is not part of the loss, as torch's cross_entropy expects it."""


@dataclass(frozen=True)
class Pack:
    """One packed sequence of T tokens."""

    input_ids: Tensor
    """int64 [1, T]."""
    position_ids: Tensor
    """int64 [1, T]; they restart at the prefix's length with each product."""
    sizes: Tensor
    """int64 [products]: number of each product's tokens."""

    @property
    def last_tokens(self) -> Tensor:
        """int64 [products]: index of each product's last token."""
        return self.input_ids.shape[1] - self.sizes.sum() + self.sizes.cumsum(0) - 1


def pack(prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> Pack:
    """Pack products after one `prefix`, which may be empty if it is cached.

    >>> pack((7, 8), [(1, 2), (3,)]).input_ids
    tensor([[7, 8, 1, 2, 3]])
    """
    start, sizes = len(prefix), [len(suffix) for suffix in suffixes]
    ids = [*prefix, *(token for suffix in suffixes for token in suffix)]
    positions = [*range(start), *(start + i for size in sizes for i in range(size))]
    return Pack(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        sizes=torch.tensor(sizes),
    )


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[range]:
    """Yield consecutive index ranges of at most `budget` tokens; a longer item is alone.

    >>> list(token_batches([3, 3, 9, 1], budget=6))
    [range(0, 2), range(2, 3), range(3, 4)]
    """
    start = used = 0
    for index, length in enumerate(lengths):
        if index > start and used + length > budget:
            yield range(start, index)
            start, used = index, 0
        used += length
    if start < len(lengths):
        yield range(start, len(lengths))
