"""Fair shares of a forward pass, and the expected wait."""

from hypothesis import given
from hypothesis import strategies as st

from grocer.config.deployment import ServingConfig
from serving.predictor.batching.queue import QueuedRequest, RequestQueue, allocate
from tests.fixtures.predictor import Product


def request(tokens: list[int]) -> QueuedRequest:
    products = [Product("x", count) for count in tokens]
    return QueuedRequest(["x"] * len(tokens), None, 0.0, 0.0, products=products)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1), min_size=1), st.integers(1, 40))
def test_passes_take_every_item_once_in_order(sizes: list[list[int]], budget: int) -> None:
    requests = [request(tokens) for tokens in sizes]
    while waiting := [each for each in requests if each.remaining]:
        before = {each: each.taken for each in waiting}
        batch = allocate(waiting, budget)
        assert batch
        assert all(part.start == before[part.request] < part.stop for part in batch)
        tokens = [p.tokens for part in batch for p in part.products if p.tokens]
        assert sum(tokens) <= budget or len(tokens) == 1


def test_small_requests_share_a_pass_with_a_large_one() -> None:
    batch = allocate([request([1] * 100), request([1]), request([1, 1])], 12)
    assert [part.stop for part in batch] == [9, 1, 2]


def test_expected_wait_counts_whole_passes() -> None:
    queue = RequestQueue(ServingConfig(token_budget=20))
    for _ in range(50):
        queue.record_pass(seconds=0.1, items=1, tokens=1)
    assert queue.expected_wait(20 - 1) == 0
    assert 0.09 < queue.expected_wait(20 + 1) < 0.11


def test_items_without_tokens_neither_fill_a_pass_nor_count_for_the_wait() -> None:
    assert [part.stop for part in allocate([request([0] * 100 + [5]), request([5, 5])], 10)] == [
        101,
        1,
    ]
    queue = RequestQueue(ServingConfig(token_budget=20))
    queue.record_pass(seconds=0.1, items=1, tokens=1)
    before = queue.expected_wait(100)
    queue.record_pass(seconds=0.1, items=50, tokens=0)
    assert queue.expected_wait(100) == before
