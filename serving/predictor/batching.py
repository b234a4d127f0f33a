"""Requests share forward passes: a bounded queue in front of the one thread that owns the model.

A forward pass takes items from every waiting request in turn, up to a budget of tokens, so a
large request does not hold up a small one. A request that was given up or is past its deadline
leaves the queue before it costs anything. One that the model cannot score fails alone. When
even a harmless name fails, or a pass never ends, the device is taken for broken.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate, islice, pairwise
from typing import Any, Protocol

from grocer.inference.scores import Scores
from grocer.model.hierarchy import Leaf
from serving.predictor.errors import Refusal
from serving.predictor.jobs import Job, Pace, Part, share_out

PROBE = "milk"


class Scorer(Protocol):
    """What owns the model; see `grocer.scoring`."""

    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def leaves(self) -> Sequence[Leaf]: ...
    def encode(self, names: Sequence[str]) -> Sequence[Any]: ...
    def score(self, products: Sequence[Any]) -> Scores: ...


class Watch(Protocol):
    """What is told about queue and passes, from either thread."""

    def queued(self, items: int) -> None: ...
    def passed(self, items: int, tokens: int, seconds: float, waits: Sequence[float]) -> None: ...


class DeviceError(Exception):
    """The model cannot score anything any more."""


class Batcher:
    """The queue and its thread.

    Args:
        load: makes the scorer; called on the thread that will own it.
        on_ready, on_failure: called on the event loop, once; a failure is final.
        token_budget: tokens of a forward pass.
        wait_seconds: how long an unfilled pass waits for more.
        queue_items: items that may wait.
        queue_seconds: how long a request may be expected to wait behind others.
    """

    def __init__(
        self,
        load: Callable[[], Scorer],
        watch: Watch,
        *,
        on_ready: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        token_budget: int,
        wait_seconds: float,
        queue_items: int,
        queue_seconds: float,
    ) -> None:
        self._load, self._watch = load, watch
        self._on_ready, self._on_failure = on_ready, on_failure
        self._token_budget, self._wait = token_budget, wait_seconds
        self._queue_items, self._queue_seconds = queue_items, queue_seconds
        self._jobs: deque[Job] = deque()
        self._items = 0
        self._changed = threading.Condition()
        self._closed = False
        self._passing: list[Part] = []
        self._busy_since: float | None = None
        self._ended = 0.0
        self._lag = 0.0
        self._pace = Pace()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Load, warm up and serve, on a thread of its own; called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def probabilities(self, names: Sequence[str], seconds: float) -> Scores:
        """The scores of the names, from whatever forward passes these names got into.

        Raises:
            Refusal: 429 the queue is full; 504 not done within `seconds`; 503 the device failed
                or the server stops; 400 the model cannot score one of the names.
        """
        now = time.monotonic()
        job = Job(names, self._loop.create_future(), now, now + seconds)
        self._put(job)
        try:
            async with asyncio.timeout(seconds):
                return await job.future
        except TimeoutError:
            raise Refusal(504, f"no answer within {seconds:g} s; ask for less at once") from None
        finally:
            # Reached by a client's disconnect too, which cancels the handler.
            job.given_up = True

    def stalled_for(self) -> float:
        """Seconds that the present forward pass has taken so far."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def require_room(self, in_hand: int) -> None:
        """Refuse early what would be refused anyhow, before its body is read.

        Args:
            in_hand: requests that were read and are not answered. Those on their way into the
                queue wait too, and those on their way out keep the event loop busy as long.

        Raises:
            Refusal: 429 a request of one item would be refused.
        """
        on_the_way = in_hand - len(self._jobs) - len(self._passing)
        if (self._items or on_the_way > 0) and self._is_full(1, max(0, on_the_way)):
            raise self._full(max(0, on_the_way))

    def close(self) -> None:
        """Refuse what waits, and end the thread after its present pass."""
        self._refuse_all(Refusal(503, "the server is stopping", retry_after=1))

    def abandon(self) -> None:
        """Refuse everything, the present pass too: the device failed."""
        refusal = Refusal(503, "the model's device failed", retry_after=10)
        passing = list(self._passing)
        self._refuse_all(refusal)
        for part in passing:
            self._loop.call_soon_threadsafe(_refuse, part.job, refusal)

    def _put(self, job: Job) -> None:
        with self._changed:
            if self._closed:
                raise Refusal(503, "the server is stopping", retry_after=1)
            # An empty queue takes whatever one request may hold.
            if self._items and self._is_full(len(job.names)):
                raise self._full()
            self._jobs.append(job)
            self._items += len(job.names)
            self._changed.notify()
        self._watch.queued(self._items)

    def _is_full(self, size: int, on_the_way: int = 0) -> bool:
        if self._items + size > self._queue_items:
            return True
        # Passes take from every request in turn: of a larger one, about as many go before it.
        jobs = tuple(self._jobs)
        before = len(jobs) if size == 1 else sum(min(other.left, size) for other in jobs)
        wait = self._pace.seconds_for(before + on_the_way)
        # Who gets into the next pass is in no queue, and a loop is late for other reasons too.
        return wait > 0 and wait + self._lag > self._queue_seconds

    def _full(self, on_the_way: int = 0) -> Refusal:
        items = self._items + on_the_way
        seconds = max(1, round(self._pace.seconds_for(items)))
        return Refusal(429, f"the queue is full with {items} items", retry_after=seconds)

    def _run(self) -> None:
        try:
            scorer = self._load()
            scorer.score(scorer.encode([PROBE]))
            self._loop.call_soon_threadsafe(self._on_ready)
            while parts := self._next(scorer):
                self._score(scorer, parts)
        except BaseException as error:
            self.abandon()
            self._loop.call_soon_threadsafe(self._on_failure, error)

    def _next(self, scorer: Scorer) -> list[Part]:
        """What the next forward pass takes; empty once closed."""
        while True:
            with self._changed:
                if self._closed:
                    return []
                self._drop_given_up()
                waiting = list(self._jobs)
                if not waiting:
                    self._changed.wait()
                    continue
            # Tokenising costs time, and the event loop must not wait for it.
            _tokenise(scorer, [job for job in waiting if not job.products])
            tokens = sum(sum(each.tokens for each in job.products[job.taken :]) for job in waiting)
            with self._changed:
                if self._closed:
                    return []
                left = waiting[0].arrived + self._wait - time.monotonic()
                if left <= 0 or tokens >= self._token_budget:
                    return self._take(waiting)
                if len(self._jobs) == len(waiting):
                    self._changed.wait(left)

    def _drop_given_up(self) -> None:
        now = time.monotonic()
        kept = [job for job in self._jobs if not job.given_up and job.deadline > now]
        if len(kept) < len(self._jobs):
            self._jobs = deque(kept)
            self._items = sum(job.left for job in kept)

    def _take(self, waiting: Sequence[Job]) -> list[Part]:
        parts = share_out(waiting, self._token_budget)
        self._jobs = deque(job for job in self._jobs if job.left)
        self._items -= sum(part.stop - part.start for part in parts)
        self._passing = parts
        return parts

    def _score(self, scorer: Scorer, parts: Sequence[Part]) -> None:
        started = self._busy_since = time.monotonic()
        self._watch.queued(self._items)
        products = [product for part in parts for product in part.products]
        try:
            rows = scorer.score(products)
        except Exception:
            self._require_alive(scorer)
            done = [(part, self._alone(scorer, part)) for part in parts]
        else:
            ends = list(accumulate(part.stop - part.start for part in parts))
            slices = [rows[start:stop] for start, stop in pairwise([0, *ends])]
            done = list(zip(parts, slices, strict=True))
        finally:
            self._busy_since = None
        self._passing = []
        seconds = time.monotonic() - started
        tokens = sum(part.tokens for part in parts)
        # With what lay between this pass and the one before, as those who wait wait for both.
        began = max(self._ended, min(part.job.arrived for part in parts))
        self._ended = started + seconds
        self._pace.note(self._ended - began, self._token_budget * len(products) / tokens)
        waits = [started - part.job.arrived for part in parts if part.start == 0]
        self._watch.passed(len(products), tokens, seconds, waits)
        self._loop.call_soon_threadsafe(self._deliver, done, time.monotonic())

    @staticmethod
    def _require_alive(scorer: Scorer) -> None:
        try:
            scorer.score(scorer.encode([PROBE]))
        except Exception as error:
            raise DeviceError(f"a forward pass fails even for {PROBE!r}: {error}") from error

    def _alone(self, scorer: Scorer, part: Part) -> Scores | Refusal:
        """A request's items in a pass of their own, then one by one to find the bad one."""
        try:
            return scorer.score(part.products)
        except Exception:
            rows = []
            for item, product in enumerate(part.products, part.start):
                try:
                    rows.append(scorer.score([product]))
                except Exception:
                    return Refusal(400, f"item {item}: the model cannot score it")
            return Scores.concatenate(rows)

    def _deliver(self, done: Sequence[tuple[Part, Scores | Refusal]], since: float) -> None:
        """On the event loop: give finished requests their answer."""
        # An event loop that is behind holds up who comes as much as a queue does.
        self._lag = time.monotonic() - since
        for part, result in done:
            job = part.job
            if job.future.done():
                continue
            if isinstance(result, Refusal):
                _refuse(job, result)
                continue
            job.rows.append(result)
            if part.stop == len(job.names):
                job.future.set_result(Scores.concatenate(job.rows))

    def _refuse_all(self, refusal: Refusal) -> None:
        with self._changed:
            self._closed = True
            jobs, self._jobs, self._items = list(self._jobs), deque(), 0
            self._changed.notify_all()
        for job in jobs:
            self._loop.call_soon_threadsafe(_refuse, job, refusal)


def _tokenise(scorer: Scorer, jobs: Sequence[Job]) -> None:
    """Of all jobs at once, which costs less than one after the other."""
    products = iter(scorer.encode([name for job in jobs for name in job.names]))
    for job in jobs:
        job.products = list(islice(products, len(job.names)))


def _refuse(job: Job, refusal: Refusal) -> None:
    job.given_up = True
    if not job.future.done():
        job.future.set_exception(refusal)
