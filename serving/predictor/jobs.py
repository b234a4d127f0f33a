"""Requests that wait for forward passes, what a pass takes of each, and how fast passes go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from grocer.inference.scores import Scores


class Product(Protocol):
    """A name ready to be scored; see `grocer.scoring`."""

    @property
    def tokens(self) -> int: ...


@dataclass(eq=False)
class Job:
    """A request in the queue."""

    names: Sequence[str]
    future: asyncio.Future[Scores]
    arrived: float
    deadline: float
    rows: list[Scores] = field(default_factory=list)
    products: Sequence[Product] = ()
    """The names tokenised, once the model's thread has come to it."""
    taken: int = 0
    """Items that have been handed to a forward pass."""
    given_up: bool = False

    @property
    def left(self) -> int:
        return len(self.names) - self.taken


@dataclass(frozen=True)
class Part:
    """Items of one request within a forward pass."""

    job: Job
    start: int
    stop: int

    @property
    def products(self) -> Sequence[Product]:
        return self.job.products[self.start : self.stop]

    @property
    def tokens(self) -> int:
        return sum(product.tokens for product in self.products)


def share_out(waiting: Sequence[Job], token_budget: int) -> list[Part]:
    """What the next pass takes: an equal share for every request, then what is left in order.

    Marks the items as taken. The first request gives at least one item, however long it is.
    """
    left, starts = token_budget, {job: job.taken for job in waiting}
    share = token_budget / len(waiting)
    for limit in (share, float("inf")):
        for job in waiting:
            used = 0
            while job.left and used < limit:
                tokens = job.products[job.taken].tokens
                if tokens > left and left < token_budget:
                    break
                left, used, job.taken = left - tokens, used + tokens, job.taken + 1
    return [Part(job, start, job.taken) for job, start in starts.items() if job.taken > start]


class Pace:
    """How long items will wait, judged by the latest passes.

    Counted in passes, not in items: where one item takes as long as twenty, twenty are no queue.
    """

    def __init__(self) -> None:
        self._seconds, self._items = 0.0, 1.0

    def note(self, seconds: float, fits: float) -> None:
        """A pass took `seconds`; `fits` items like its own would have filled one."""
        self._seconds += 0.2 * (seconds - self._seconds)
        self._items += 0.2 * (max(1.0, fits) - self._items)

    def seconds_for(self, items: int) -> float:
        """Seconds of the passes before the one that takes the next item, where `items` wait."""
        return items // self._items * self._seconds
