"""The batcher: shared passes, fairness, limits, deadlines, isolation and device failures."""

import asyncio
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from unittest.mock import Mock, create_autospec

import pytest
from numpy.testing import assert_array_equal

from grocer.config.deployment import ServingConfig
from grocer.inference.scores import Scores
from serving.predictor.batching.batcher import PROBE, Batcher, DeviceError
from serving.predictor.errors import RequestError
from serving.predictor.metrics import Metrics
from tests.fixtures.predictor import Product, StubScorer

pytestmark = pytest.mark.anyio
LABELS = ("a", "b", "c")


class BlockedScorer(StubScorer):
    """Blocks in each pass until `resume` is set; sets `started`."""

    def __init__(self) -> None:
        super().__init__(LABELS)
        self.started, self.resume = threading.Event(), threading.Event()

    def score(self, products: Sequence[Product]) -> Scores:
        if PROBE not in [product.name for product in products]:
            self.started.set()
            assert self.resume.wait(10)
        return super().score(products)


class Running(Batcher):
    failure: BaseException | None = None
    metrics: Mock
    scorer: StubScorer


@asynccontextmanager
async def running(scorer: StubScorer, **settings: object) -> AsyncIterator[Running]:
    """Run a batcher with the scorer."""
    ready, failed = asyncio.Event(), asyncio.Event()
    defaults = {"token_budget": 8, "max_items": 5, "queue_seconds": 60.0}  # 20 items in the queue
    config = ServingConfig(**defaults | settings)

    def fail(error: BaseException) -> None:
        batcher.failure = error
        failed.set()

    metrics = create_autospec(Metrics, instance=True)
    batcher = Running(lambda: scorer, config, metrics, on_ready=ready.set, on_failure=fail)
    batcher.metrics, batcher.scorer, batcher.failed = metrics, scorer, failed
    batcher.start()
    await ready.wait()
    scorer.passes.clear()
    try:
        yield batcher
    finally:
        batcher.close()


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def occupy(batcher: Running) -> asyncio.Task:
    """Start a request that occupies the model thread until the scorer resumes."""
    first = asyncio.create_task(batcher.score(["first"], 10))
    await wait_for(batcher.scorer.started.is_set)
    return first


@asynccontextmanager
async def occupied(**settings: object) -> AsyncIterator[Running]:
    """Run a batcher whose model thread is occupied by a request until the scorer resumes.

    It resumes at the latest at the end of the block, which the request must survive.
    """
    async with running(BlockedScorer(), **settings) as batcher:
        first = await occupy(batcher)
        try:
            yield batcher
        finally:
            batcher.scorer.resume.set()
        assert len(await first) == 1


async def enqueue(batcher: Running, *requests: Sequence[str]) -> list[asyncio.Task]:
    """Start requests, in order, and wait until they are in the queue."""
    tasks = [asyncio.create_task(batcher.score(names, 10)) for names in requests]
    queued = batcher.metrics.measure_queue.call_args.args[0]
    expected = queued() + sum(map(len, requests))
    await wait_for(lambda: queued() == expected)
    return tasks


async def check_capacity(batcher: Batcher, in_flight: int) -> None:
    batcher.queue.check_capacity(in_flight)


async def test_each_request_receives_its_own_scores_in_order() -> None:
    scorer = StubScorer(LABELS)
    requests = [[f"{i} {j}" for j in range(1 + i % 7)] for i in range(5)]
    async with running(scorer) as batcher:
        results = await asyncio.gather(*(batcher.score(names, 10) for names in requests))
    for names, scores in zip(requests, results, strict=True):
        expected = StubScorer(LABELS).predict(names)
        assert_array_equal(scores.probabilities, expected.probabilities)


async def test_waiting_requests_share_a_pass_within_the_token_budget() -> None:
    async with occupied() as batcher:
        tasks = await enqueue(batcher, *([f"n{i}"] for i in range(12)))
        batcher.scorer.resume.set()
        await asyncio.gather(*tasks)
    assert [len(names) for names in batcher.scorer.passes] == [1, 8, 4]


async def test_large_request_does_not_delay_a_small_one() -> None:
    order = []
    async with occupied() as batcher:
        large, small = await enqueue(batcher, [f"l{i}" for i in range(16)], ["small"])
        for name, task in (("large", large), ("small", small)):
            task.add_done_callback(lambda _, name=name: order.append(name))
        batcher.scorer.resume.set()
        await asyncio.gather(large, small)
        await asyncio.sleep(0)
    assert order == ["small", "large"]


async def test_name_that_exceeds_the_budget_is_scored() -> None:
    async with running(StubScorer(LABELS), token_budget=2) as batcher:
        scores = await batcher.score(["one two three four", "five"], 10)
    assert scores.probabilities.shape == (2, 3)


async def test_items_without_tokens_are_scored_without_a_forward_pass() -> None:
    class MixedScorer(StubScorer):
        def encode(self, names: Sequence[str]) -> list[Product]:
            return [Product(name, 0 if name.startswith("easy") else 3) for name in names]

    async with running(MixedScorer(LABELS), token_budget=3) as batcher:
        scores = await batcher.score([f"easy {i}" for i in range(19)], 10)
        assert len(scores) == 19
        scores = await batcher.score(["easy", "hard", "easy", "hard"], 10)
    assert_array_equal(
        scores.probabilities,
        StubScorer(LABELS).predict(["easy", "hard", "easy", "hard"]).probabilities,
    )
    passes = [call.args[:2] for call in batcher.metrics.observe_pass.call_args_list]
    assert passes == [([], 19), ([3], 2), ([3], 0)]


async def test_full_queue_returns_429_with_retry_after() -> None:
    async with occupied() as batcher:
        tasks = await enqueue(batcher, ["n"] * 15)
        with pytest.raises(RequestError, match="queue full: 15 items") as caught:
            await batcher.score(["n"] * 6, 10)
        assert (caught.value.status, caught.value.retry_after) == (429, 1)
        batcher.scorer.resume.set()
        await asyncio.gather(*tasks)


async def test_slow_passes_lower_the_capacity_of_the_queue() -> None:
    async with occupied(queue_seconds=0.005) as batcher:
        for _ in range(50):
            batcher.queue.record_pass(seconds=0.008, items=3, tokens=8)
        tasks = await enqueue(batcher, ["n"] * 10)
        with pytest.raises(RequestError, match="queue full"):
            await batcher.score(["n"] * 3, 10)
        # A small request does not wait for all of a large one.
        tasks += await enqueue(batcher, ["n"] * 2)
        batcher.scorer.resume.set()
        await asyncio.gather(*tasks)


async def test_lag_of_the_event_loop_lowers_the_capacity_until_the_queue_is_empty() -> None:
    scorer = BlockedScorer()
    async with running(scorer, queue_seconds=0.2) as batcher:
        first = await occupy(batcher)
        scorer.resume.set()
        time.sleep(0.5)  # block the event loop
        await first
        scorer.started.clear()
        scorer.resume.clear()
        for _ in range(50):
            batcher.queue.record_pass(seconds=0.001, items=19, tokens=80)
        tasks = [await occupy(batcher)]
        # The next pass has room for two, whatever the lag.
        for waiting in (1, 2):
            batcher.queue.check_capacity(waiting)
            tasks += await enqueue(batcher, ["waits"])
        for rejected in (batcher.score(["late"], 10), check_capacity(batcher, 3)):
            with pytest.raises(RequestError, match="queue full: 2 items"):
                await rejected
        scorer.resume.set()
        await asyncio.gather(*tasks)
        await batcher.score(["after"], 10)


async def test_requests_outside_the_queue_count_towards_its_capacity() -> None:
    scorer = BlockedScorer()
    async with running(scorer, queue_seconds=0.005) as batcher:
        for _ in range(50):
            batcher.queue.record_pass(seconds=0.008, items=3, tokens=8)
        batcher.queue.check_capacity(2)
        with pytest.raises(RequestError, match="queue full: 3 items") as caught:
            batcher.queue.check_capacity(3)
        assert caught.value.status == 429
        # One in a pass and one in the queue are not counted twice.
        tasks = [await occupy(batcher), *await enqueue(batcher, ["n"] * 2)]
        batcher.queue.check_capacity(3)
        with pytest.raises(RequestError, match="queue full"):
            batcher.queue.check_capacity(4)
        scorer.resume.set()
        await asyncio.gather(*tasks)


async def test_request_past_its_deadline_is_504_and_is_not_scored() -> None:
    async with occupied() as batcher:
        with pytest.raises(RequestError) as caught:
            await batcher.score(["late"], 0.01)
        assert caught.value.status == 504
        batcher.scorer.resume.set()
        await batcher.score(["after"], 10)
    assert batcher.scorer.passes == [["first"], ["after"]]


async def test_cancelled_request_leaves_the_queue() -> None:
    async with occupied() as batcher:
        (gone,) = await enqueue(batcher, ["gone"])
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        batcher.scorer.resume.set()
        await batcher.score(["after"], 10)
    assert batcher.scorer.passes == [["first"], ["after"]]


@pytest.mark.parametrize("name", ["poison", "panic"])
async def test_item_that_cannot_be_scored_or_tokenized_fails_only_its_request(name: str) -> None:
    async with occupied() as batcher:
        good, bad = await enqueue(batcher, ["good"], ["fine", name])
        batcher.scorer.resume.set()
        with pytest.raises(RequestError, match="item 1: the model cannot score it") as caught:
            await bad
        assert caught.value.status == 400
        expected = StubScorer(LABELS).predict(["good"])
        assert_array_equal((await good).probabilities, expected.probabilities)
        assert batcher.failure is None
    assert name == "poison" or batcher.scorer.passes[-1] == ["good"]


async def test_lack_of_memory_is_503_with_retry_after() -> None:
    async with running(StubScorer(LABELS)) as batcher:
        with pytest.raises(RequestError) as caught:
            await batcher.score(["fine", "memory"], 10)
        assert (caught.value.status, caught.value.retry_after) == (503, 1)
        assert len(await batcher.score(["fine"], 10)) == 1
        assert batcher.failure is None


async def test_tokenizing_counts_as_busy_time() -> None:
    class SlowTokenizer(StubScorer):
        started, resume = threading.Event(), threading.Event()

        def encode(self, names: Sequence[str]) -> list[Product]:
            if PROBE not in names:
                self.started.set()
                assert self.resume.wait(10)
            return super().encode(names)

    scorer = SlowTokenizer(LABELS)
    async with running(scorer) as batcher:
        request = asyncio.create_task(batcher.score(["slow"], 10))
        await wait_for(scorer.started.is_set)
        assert batcher.stalled_seconds() > 0
        scorer.resume.set()
        await request
        await wait_for(lambda: batcher.stalled_seconds() == 0)


@pytest.mark.parametrize(("name", "kind"), [("break", DeviceError), ("dead", SystemExit)])
async def test_device_failure_rejects_all_requests(name: str, kind: type) -> None:
    async with running(StubScorer(LABELS)) as batcher:
        requests = [batcher.score([text], 10) for text in (name, *["more"] * 12)]
        errors = await asyncio.gather(*requests, return_exceptions=True)
        assert all(isinstance(error, RequestError) for error in errors)
        assert {error.status for error in errors} == {503}
        await asyncio.wait_for(batcher.failed.wait(), 10)
        assert isinstance(batcher.failure, kind)
        assert "'break'" not in "".join(traceback.format_exception(batcher.failure))
        with pytest.raises(RequestError) as caught:
            await batcher.score(["after"], 10)
        assert caught.value.status == 503


async def test_close_rejects_waiting_requests_and_completes_the_current_pass() -> None:
    async with occupied() as batcher:
        (waiting,) = await enqueue(batcher, ["waits"])
        batcher.close()
        with pytest.raises(RequestError, match="shutting down"):
            await waiting


async def test_join_waits_for_the_current_pass() -> None:
    async with occupied() as batcher:
        batcher.close()
        assert not batcher.join(0.01)
        batcher.scorer.resume.set()
        assert batcher.join(10)
