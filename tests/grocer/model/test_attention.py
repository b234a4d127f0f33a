"""Attention of packed products equals attention with a block-diagonal mask."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from grocer.model.attention import pack_layout, packed_attention


def test_product_attends_to_the_prefix_and_to_its_earlier_tokens() -> None:
    layout = pack_layout(torch.tensor([2, 1]), prefix=1)
    assert layout.positions.tolist() == [0, 1, 2]
    assert layout.mask.int().tolist() == [[[1, 1, 0], [1, 1, 1]], [[1, 1, 0], [1, 1, 1]]]


def test_layout_stays_on_the_device_of_the_sizes() -> None:
    """A layout that is made on the CPU would stop training on a GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    layout = pack_layout(torch.tensor([2, 1], device="cuda"), prefix=1)
    assert layout.mask.is_cuda
    assert layout.positions.is_cuda


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    prefix=st.integers(0, 4),
    cached=st.booleans(),
    groups=st.sampled_from([1, 3]),
)
def test_equals_a_block_diagonal_mask(
    sizes: list[int], prefix: int, cached: bool, groups: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = prefix + sum(sizes)
    query = torch.randn(1, 2 * groups, tokens, 4, generator=generator)
    key, value = torch.randn(2, 1, 2, tokens, 4, generator=generator)
    segments = torch.tensor([-1] * prefix + [i for i, n in enumerate(sizes) for _ in range(n)])
    same = (segments[:, None] == segments) | (segments == -1)
    expected = scaled_dot_product_attention(
        query, key, value, attn_mask=same & torch.ones_like(same).tril(), enable_gqa=True, scale=0.5
    ).transpose(1, 2)
    if cached:
        query, expected = query[:, :, prefix:], expected[:, prefix:]
    layout = pack_layout(torch.tensor(sizes), prefix)
    output, _ = packed_attention(
        SimpleNamespace(), query, key, value, None, scaling=0.5, layout=layout
    )
    torch.testing.assert_close(output, expected)
