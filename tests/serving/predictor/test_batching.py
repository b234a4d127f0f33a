"""The queue: shared passes, fairness, bounds, deadlines, isolation, and a device that fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from serving.predictor.batching import PROBE, Batcher, DeviceError
from serving.predictor.errors import Refusal
from tests.fixtures.predictor import Product, StubScorer

LABELS = ("a", "b", "c")


class Watch:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.items = 0
        self.passes: list[int] = []

    def queued(self, items: int) -> None:
        self.items = items

    def passed(self, items: int, tokens: int, seconds: float, waits: Sequence[float]) -> None:
        self.passes.append(items)


class Held(StubScorer):
    """Scores only once it is let go; tells when a pass has begun."""

    def __init__(self) -> None:
        super().__init__(LABELS)
        self.begun, self.go = threading.Event(), threading.Event()

    def score(self, products: Sequence[Product]) -> np.ndarray:
        if PROBE not in [product.name for product in products]:
            self.begun.set()
            assert self.go.wait(10)
        return super().score(products)


class Running(Batcher):
    failure: BaseException | None = None
    watch: Watch


@asynccontextmanager
async def running(scorer: StubScorer, **more: object) -> AsyncIterator[Running]:
    """A batcher around `scorer`, loaded."""
    ready, failed = asyncio.Event(), asyncio.Event()
    settings = {
        "token_budget": 8,
        "wait_seconds": 0.0,
        "queue_items": 20,
        "queue_seconds": 60.0,
        **more,
    }

    def fail(error: BaseException) -> None:
        batcher.failure = error
        failed.set()

    batcher = Running(lambda: scorer, Watch(), on_ready=ready.set, on_failure=fail, **settings)
    batcher.watch, batcher.failed = batcher._watch, failed
    batcher.start()
    await ready.wait()
    scorer.passes.clear()
    try:
        yield batcher
    finally:
        if isinstance(scorer, Held):
            scorer.go.set()
        batcher.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


async def in_a_pass(batcher: Batcher, scorer: Held) -> asyncio.Task:
    """A request that occupies the thread until the scorer is let go."""
    first = asyncio.create_task(batcher.probabilities(["first"], 10))
    await until(scorer.begun.is_set)
    return first


async def room(batcher: Batcher, in_hand: int) -> None:
    batcher.require_room(in_hand)


def run(test: Callable[[], object]) -> None:
    asyncio.run(test())


def test_every_request_gets_its_own_rows_in_order() -> None:
    async def test() -> None:
        scorer = StubScorer(LABELS)
        asked = [[f"{i} {j}" for j in range(1 + i % 7)] for i in range(5)]
        async with running(scorer) as batcher:
            found = await asyncio.gather(*(batcher.probabilities(names, 10) for names in asked))
        for names, rows in zip(asked, found, strict=True):
            assert_array_equal(rows.probabilities, StubScorer(LABELS).predict(names).probabilities)

    run(test)


def test_requests_that_wait_share_a_pass_within_the_token_budget() -> None:
    async def test() -> None:
        scorer = Held()
        async with running(scorer) as batcher:
            tasks = [await in_a_pass(batcher, scorer)]
            tasks += [asyncio.create_task(batcher.probabilities([f"n{i}"], 10)) for i in range(12)]
            await until(lambda: batcher.watch.items == 12)
            scorer.go.set()
            await asyncio.gather(*tasks)
        assert [len(names) for names in scorer.passes] == [1, 8, 4]

    run(test)


def test_a_large_request_does_not_hold_up_a_small_one() -> None:
    async def test() -> None:
        scorer, order = Held(), []
        async with running(scorer) as batcher:
            first = await in_a_pass(batcher, scorer)
            large = asyncio.create_task(batcher.probabilities([f"l{i}" for i in range(16)], 10))
            await until(lambda: batcher.watch.items == 16)
            small = asyncio.create_task(batcher.probabilities(["small"], 10))
            await until(lambda: batcher.watch.items == 17)
            for name, task in (("large", large), ("small", small)):
                task.add_done_callback(lambda _, name=name: order.append(name))
            scorer.go.set()
            await asyncio.gather(first, large, small)
            await asyncio.sleep(0)
        assert order == ["small", "large"]

    run(test)


def test_a_name_above_the_budget_still_goes_through() -> None:
    async def test() -> None:
        async with running(StubScorer(LABELS), token_budget=2) as batcher:
            found = await batcher.probabilities(["one two three four", "five"], 10)
        assert found.probabilities.shape == (2, 3)

    run(test)


def test_a_full_queue_says_when_to_come_back() -> None:
    async def test() -> None:
        scorer = Held()
        async with running(scorer) as batcher:
            tasks = [await in_a_pass(batcher, scorer)]
            tasks.append(asyncio.create_task(batcher.probabilities(["n"] * 15, 10)))
            await until(lambda: batcher.watch.items == 15)
            with pytest.raises(Refusal, match="queue is full with 15 items") as caught:
                await batcher.probabilities(["n"] * 6, 10)
            assert (caught.value.status, caught.value.retry_after) == (429, 1)
            scorer.go.set()
            await asyncio.gather(*tasks)

    run(test)


def test_a_queue_that_moves_slowly_is_full_earlier() -> None:
    async def test() -> None:
        scorer = Held()
        async with running(scorer, queue_seconds=0.005) as batcher:
            for _ in range(50):
                batcher._pace.note(seconds=0.008, fits=3)
            tasks = [await in_a_pass(batcher, scorer)]
            tasks.append(asyncio.create_task(batcher.probabilities(["n"] * 10, 10)))
            await until(lambda: batcher.watch.items == 10)
            with pytest.raises(Refusal, match="queue is full"):
                await batcher.probabilities(["n"] * 3, 10)
            # A small request does not wait for all of a large one.
            tasks.append(asyncio.create_task(batcher.probabilities(["n"] * 2, 10)))
            await until(lambda: batcher.watch.items == 12)
            scorer.go.set()
            await asyncio.gather(*tasks)

    run(test)


def test_a_late_event_loop_makes_the_queue_full_until_it_is_empty() -> None:
    async def test() -> None:
        scorer = Held()
        async with running(scorer, queue_seconds=0.2) as batcher:
            first = await in_a_pass(batcher, scorer)
            scorer.go.set()
            time.sleep(0.5)  # the loop is held up: that is the point
            await first
            scorer.begun.clear()
            scorer.go.clear()
            for _ in range(50):
                batcher._pace.note(seconds=0.001, fits=1.9)
            tasks = [await in_a_pass(batcher, scorer)]
            # The next pass has room for two, however late the loop is.
            for waiting in (1, 2):
                batcher.require_room(waiting)
                tasks.append(asyncio.create_task(batcher.probabilities(["waits"], 10)))
                await until(lambda: batcher.watch.items == waiting)  # noqa: B023
            for refused in (batcher.probabilities(["late"], 10), room(batcher, 3)):
                with pytest.raises(Refusal, match="the queue is full with 2 items"):
                    await refused
            scorer.go.set()
            await asyncio.gather(*tasks)
            await batcher.probabilities(["after"], 10)

    run(test)


def test_requests_on_their_way_into_the_queue_take_room() -> None:
    async def test() -> None:
        scorer = Held()
        async with running(scorer, queue_seconds=0.005) as batcher:
            for _ in range(50):
                batcher._pace.note(seconds=0.008, fits=3)
            batcher.require_room(2)
            with pytest.raises(Refusal, match="the queue is full with 3 items") as caught:
                batcher.require_room(3)
            assert caught.value.status == 429
            # One in a pass and one in the queue are counted where they are.
            tasks = [await in_a_pass(batcher, scorer)]
            tasks.append(asyncio.create_task(batcher.probabilities(["n"] * 2, 10)))
            await until(lambda: batcher.watch.items == 2)
            batcher.require_room(3)
            with pytest.raises(Refusal, match="queue is full"):
                batcher.require_room(4)
            scorer.go.set()
            await asyncio.gather(*tasks)

    run(test)


def test_a_request_past_its_deadline_is_504_and_costs_no_pass() -> None:
    async def test() -> None:
        scorer = Held()
        async with running(scorer) as batcher:
            first = await in_a_pass(batcher, scorer)
            with pytest.raises(Refusal) as caught:
                await batcher.probabilities(["late"], 0.01)
            assert caught.value.status == 504
            scorer.go.set()
            await first
            await batcher.probabilities(["after"], 10)
        assert scorer.passes == [["first"], ["after"]]

    run(test)


def test_a_cancelled_request_leaves_the_queue() -> None:
    async def test() -> None:
        scorer = Held()
        async with running(scorer) as batcher:
            first = await in_a_pass(batcher, scorer)
            gone = asyncio.create_task(batcher.probabilities(["gone"], 10))
            await until(lambda: batcher.watch.items == 1)
            gone.cancel()
            scorer.go.set()
            await first
            await batcher.probabilities(["after"], 10)
        assert scorer.passes == [["first"], ["after"]]

    run(test)


def test_one_bad_item_fails_its_request_alone() -> None:
    async def test() -> None:
        scorer = Held()
        async with running(scorer) as batcher:
            first = await in_a_pass(batcher, scorer)
            good = asyncio.create_task(batcher.probabilities(["good"], 10))
            bad = asyncio.create_task(batcher.probabilities(["fine", "poison"], 10))
            await until(lambda: batcher.watch.items == 3)
            scorer.go.set()
            with pytest.raises(Refusal, match="item 1: the model cannot score it") as caught:
                await bad
            assert caught.value.status == 400
            assert_array_equal(
                (await good).probabilities, StubScorer(LABELS).predict(["good"]).probabilities
            )
            await first
            assert batcher.failure is None

    run(test)


@pytest.mark.parametrize(("name", "kind"), [("break", DeviceError), ("dead", SystemExit)])
def test_a_failed_device_refuses_everything_and_tells(name: str, kind: type) -> None:
    async def test() -> None:
        async with running(StubScorer(LABELS)) as batcher:
            asked = [batcher.probabilities([text], 10) for text in (name, *["more"] * 12)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(refusal, Refusal) for refusal in found)
            assert {refusal.status for refusal in found} == {503}
            await asyncio.wait_for(batcher.failed.wait(), 10)
            assert isinstance(batcher.failure, kind)
            with pytest.raises(Refusal) as caught:
                await batcher.probabilities(["after"], 10)
            assert caught.value.status == 503

    run(test)


def test_closing_refuses_what_waits_and_answers_what_passes() -> None:
    async def test() -> None:
        scorer = Held()
        async with running(scorer) as batcher:
            first = await in_a_pass(batcher, scorer)
            waiting = asyncio.create_task(batcher.probabilities(["waits"], 10))
            await until(lambda: batcher.watch.items == 1)
            batcher.close()
            scorer.go.set()
            assert (await first).probabilities.shape == (1, 3)
            with pytest.raises(Refusal, match="the server is stopping"):
                await waiting

    run(test)
