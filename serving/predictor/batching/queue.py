"""The request queue: admission control, deadlines, and fair shares of each forward pass.

The event loop adds requests, the model thread takes batches of their items.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grocer.config.deployment import ServingConfig
from grocer.inference.scores import Scores
from serving.predictor.errors import RequestError

if TYPE_CHECKING:
    from grocer.inference.scores import EncodedProduct


@dataclass(eq=False)
class QueuedRequest:
    """A request in the queue or in a forward pass."""

    names: Sequence[str]
    future: asyncio.Future[Scores]
    arrived: float
    deadline: float
    scores: list[Scores] = field(default_factory=list)
    """Scores so far, one element per forward pass."""
    products: Sequence[EncodedProduct] = ()
    """The encoded names; empty until the model thread encodes them."""
    taken: int = 0
    """Number of items that forward passes have taken."""
    cancelled: bool = False

    @property
    def remaining(self) -> int:
        return len(self.names) - self.taken


@dataclass(frozen=True)
class BatchSlice:
    """The items of one request in a forward pass."""

    request: QueuedRequest
    start: int
    stop: int

    @property
    def products(self) -> Sequence[EncodedProduct]:
        return self.request.products[self.start : self.stop]

    def __len__(self) -> int:
        return self.stop - self.start


class RequestQueue:
    """A bounded queue in order of arrival."""

    def __init__(self, config: ServingConfig) -> None:
        self._config = config
        self.items = 0
        """Number of waiting items."""
        self.batch: Sequence[BatchSlice] = ()
        """The current forward pass."""
        self.loop_lag = 0.0
        """Latest delay of the event loop in seconds, which delays responses as well."""
        # Moving averages: duration of a forward pass, and items that fit into one.
        self._pass_seconds, self._pass_items = 0.0, 1.0
        self._requests: deque[QueuedRequest] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, request: QueuedRequest) -> None:
        """Add a request, or raise a RequestError: 429, queue full; 503, queue closed."""
        with self._changed:
            if self._closed:
                raise RequestError(503, "the server is shutting down", retry_after=1)
            # An empty queue accepts a request of any size.
            if self.items and self._is_full(len(request.names), 0):
                raise self._overloaded(0)
            self._requests.append(request)
            self.items += len(request.names)
            self._changed.notify()

    def check_capacity(self, in_flight: int) -> None:
        """Raise a RequestError (429) if a request with one item would be rejected.

        Args:
            in_flight: requests whose body was read and whose response was not sent. Those outside
                the queue and the current pass will add to the queue, or keep the event loop busy.
        """
        outside = max(0, in_flight - len(self._requests) - len(self.batch))
        if (self.items or outside) and self._is_full(1, outside):
            raise self._overloaded(outside)

    def next_batch(self, encode: Callable[[Sequence[QueuedRequest]], None]) -> list[BatchSlice]:
        """Wait for requests and take a batch; return an empty one if the queue is closed.

        Args:
            encode: sets `products` of requests, or marks them as cancelled.
        """
        config = self._config
        while True:
            with self._changed:
                if self._closed:
                    return []
                self._drop_expired()
                waiting = list(self._requests)
                if not waiting:
                    self._changed.wait()
                    continue
            # Outside the lock, which the event loop needs.
            encode([request for request in waiting if not request.products])
            if any(request.cancelled for request in waiting):
                continue
            tokens = sum(p.tokens for request in waiting for p in request.products[request.taken :])
            with self._changed:
                if self._closed:
                    return []
                left = waiting[0].arrived + config.batch_wait_ms / 1000 - time.monotonic()
                # Names without tokens need no forward pass, so more of them save nothing.
                if left <= 0 or not 0 < tokens < config.token_budget:
                    self.batch = batch = allocate(waiting, config.token_budget)
                    self._requests = deque(r for r in self._requests if r.remaining)
                    self.items -= sum(map(len, batch))
                    return batch
                if len(self._requests) == len(waiting):
                    self._changed.wait(left)

    def record_pass(self, seconds: float, items: int, tokens: int) -> None:
        """Record the duration and size of a forward pass; without tokens there was none."""
        if not tokens:
            return
        capacity = self._config.token_budget * items / tokens
        self._pass_seconds += 0.2 * (seconds - self._pass_seconds)
        self._pass_items += 0.2 * (max(1.0, capacity) - self._pass_items)

    def expected_wait(self, items: int) -> float:
        """Return the seconds until a pass has room behind `items`.

        Whole passes count: a pass of one item can take as long as one of twenty.
        """
        return items // self._pass_items * self._pass_seconds

    def close(self) -> list[QueuedRequest]:
        """Close the queue and return the waiting requests."""
        with self._changed:
            self._closed = True
            waiting, self._requests, self.items = list(self._requests), deque(), 0
            self._changed.notify_all()
        return waiting

    def _drop_expired(self) -> None:
        now = time.monotonic()
        kept = deque(r for r in self._requests if not r.cancelled and r.deadline > now)
        if len(kept) < len(self._requests):
            self._requests = kept
            self.items = sum(request.remaining for request in kept)

    def _is_full(self, size: int, outside: int) -> bool:
        if self.items + size > self._config.queue_items:
            return True
        # A pass is shared fairly: about `size` items of each larger request go first.
        requests = tuple(self._requests)
        ahead = len(requests) if size == 1 else sum(min(r.remaining, size) for r in requests)
        wait = self.expected_wait(ahead + outside)
        # If the next pass has room, a delay of the event loop does not count.
        return wait > 0 and wait + self.loop_lag > self._config.queue_seconds

    def _overloaded(self, outside: int) -> RequestError:
        items = self.items + outside
        retry_after = max(1, round(self.expected_wait(items)))
        return RequestError(429, f"queue full: {items} items waiting", retry_after=retry_after)


def allocate(waiting: Sequence[QueuedRequest], token_budget: int) -> list[BatchSlice]:
    """Divide a forward pass: equal shares first, then the rest in order of arrival.

    Marks the items as taken. At least one item is taken, even if it exceeds the budget.
    """
    left, starts = token_budget, {request: request.taken for request in waiting}
    for limit in (token_budget / len(waiting), float("inf")):
        for request in waiting:
            used = 0
            while request.remaining and used < limit:
                tokens = request.products[request.taken].tokens
                if tokens > left and left < token_budget:
                    break
                left, used, request.taken = left - tokens, used + tokens, request.taken + 1
    return [BatchSlice(r, start, r.taken) for r, start in starts.items() if r.taken > start]
