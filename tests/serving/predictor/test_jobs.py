"""What a forward pass takes: within the budget, something always, and something of everyone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.predictor.jobs import Job, Pace, share_out
from tests.fixtures.predictor import Product


def job(tokens: list[int]) -> Job:
    products = [Product("x", count) for count in tokens]
    return Job(["x"] * len(tokens), None, 0.0, 0.0, products=products)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1), min_size=1), st.integers(1, 40))
def test_passes_end_with_every_item_taken_once_in_order(sizes: list[list[int]], most: int) -> None:
    jobs = [job(tokens) for tokens in sizes]
    while waiting := [each for each in jobs if each.left]:
        before = {each: each.taken for each in waiting}
        parts = share_out(waiting, most)
        assert parts
        assert all(part.start == before[part.job] < part.stop for part in parts)
        items = sum(part.stop - part.start for part in parts)
        assert sum(part.tokens for part in parts) <= most or items == 1


def test_small_requests_go_along_with_a_large_one() -> None:
    parts = share_out([job([1] * 100), job([1]), job([1, 1])], 12)
    assert [part.stop for part in parts] == [9, 1, 2]


def test_a_long_pass_of_one_item_does_not_make_a_queue_long() -> None:
    pace = Pace()
    for _ in range(50):
        pace.note(seconds=0.1, fits=20)
    assert pace.seconds_for(20 - 1) == 0
    assert 0.09 < pace.seconds_for(20 + 1) < 0.11
