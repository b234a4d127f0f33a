"""The model thread: it runs forward passes that concurrent requests share.

A request with an item that the model cannot tokenize or score fails alone. If the model cannot
score a known name either, or a pass stalls, the device has failed; this is final.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, islice, pairwise
from typing import TYPE_CHECKING, Any

from grocer.config.deployment import ServingConfig
from grocer.inference.scores import Scores
from serving.predictor.batching.queue import BatchSlice, QueuedRequest, RequestQueue
from serving.predictor.errors import RequestError

if TYPE_CHECKING:
    from grocer.inference.classifier import Classifier
    from serving.predictor.metrics import Metrics

PROBE = "milk"
"""A name that every model can score."""
Result = Scores | RequestError


class DeviceError(Exception):
    """The model cannot score any name."""


class Batcher:
    """Scores product names in batches.

    Args:
        load: loads the model, on the model thread.
        on_ready: called on the event loop once the model has scored a name.
        on_failure: called on the event loop if loading fails or the device failed.
    """

    def __init__(
        self,
        load: Callable[[], Classifier],
        config: ServingConfig,
        metrics: Metrics,
        *,
        on_ready: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.queue, self._load, self._metrics = RequestQueue(config), load, metrics
        metrics.measure_queue(lambda: self.queue.items)
        self._on_ready, self._on_failure = on_ready, on_failure
        self._busy_since: float | None = None
        self._pass_ended = 0.0
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the model thread; called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def score(self, names: Sequence[str], seconds: float) -> Scores:
        """Return the scores of the names within a deadline.

        Raises:
            RequestError: 400, the model cannot score a name; 429, the queue is full; 503, the
                server is shutting down, the device failed or is out of memory; 504, the deadline
                was exceeded.
        """
        now = time.monotonic()
        request = QueuedRequest(names, self._loop.create_future(), now, now + seconds)
        self.queue.put(request)
        try:
            async with asyncio.timeout(seconds):
                return await request.future
        except TimeoutError:
            message = f"request timed out after {seconds:g} s; send fewer items per request"
            raise RequestError(504, message) from None
        finally:
            # Also if the client disconnected, which cancels this coroutine.
            request.cancelled = True

    def stalled_seconds(self) -> float:
        """Return how long the model thread has tokenized or scored; 0 if it waits."""
        started = self._busy_since
        return 0.0 if started is None else time.monotonic() - started

    def close(self) -> None:
        """Reject waiting requests, and end the thread after the current pass."""
        error = RequestError(503, "the server is shutting down", retry_after=1)
        self._reject(self.queue.close(), error)

    def join(self, seconds: float) -> bool:
        """Return whether the closed model thread has ended, which also frees the model."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """Reject all requests, including those of the current pass: the device failed."""
        error = RequestError(503, "the model's device failed", retry_after=10)
        in_pass = [part.request for part in self.queue.batch]
        self._reject(self.queue.close() + in_pass, error)

    def _reject(self, requests: Sequence[QueuedRequest], error: RequestError) -> None:
        for request in requests:
            self._loop.call_soon_threadsafe(_fail, request, error)

    def _run(self) -> None:
        try:
            classifier = self._load()
            classifier.check(PROBE)
            self._loop.call_soon_threadsafe(self._on_ready)
            while batch := self.queue.next_batch(partial(self._encode, classifier)):
                self._run_pass(classifier, batch)
        except BaseException as error:
            self.abandon()
            self._loop.call_soon_threadsafe(self._on_failure, error)

    def _encode(self, classifier: Classifier, requests: Sequence[QueuedRequest]) -> None:
        """Encode the names of requests; those with a name that cannot be encoded fail."""
        self._busy_since = time.monotonic()
        try:
            # Both models are faster on the names of all requests together.
            names = [name for request in requests for name in request.names]
            products = iter(classifier.encode(names))
            for request in requests:
                request.products = list(islice(products, len(request.names)))
        except BaseException:  # a panic of the tokenizer is not an `Exception`
            _require_device(classifier)
            for request in requests:
                encoded = _one_by_one(classifier.encode, request.names)
                if isinstance(encoded, RequestError):
                    request.cancelled = True
                    self._reject([request], encoded)
                else:
                    request.products = [product for (product,) in encoded]
        finally:
            self._busy_since = None

    def _run_pass(self, classifier: Classifier, batch: Sequence[BatchSlice]) -> None:
        products = [product for part in batch for product in part.products]
        started = self._busy_since = time.monotonic()
        try:
            scores = classifier.score(products)
        except Exception:
            _require_device(classifier)
            results: list[Result] = [_score_alone(classifier, part) for part in batch]
        else:
            ends = accumulate(map(len, batch), initial=0)
            results = [scores[start:stop] for start, stop in pairwise(ends)]
        finally:
            self._busy_since = None
        self.queue.batch = ()
        ended = time.monotonic()
        tokens = [product.tokens for product in products if product.tokens]
        # A queued request also waits for the work between two passes.
        since = max(self._pass_ended, min(part.request.arrived for part in batch))
        self._pass_ended = ended
        self.queue.record_pass(ended - since, len(products), sum(tokens))
        waits = [started - part.request.arrived for part in batch if part.start == 0]
        self._metrics.observe_pass(tokens, len(products) - len(tokens), ended - started, waits)
        self._loop.call_soon_threadsafe(self._deliver, batch, results, time.monotonic())

    def _deliver(
        self, batch: Sequence[BatchSlice], results: Sequence[Result], since: float
    ) -> None:
        """Complete requests; called on the event loop."""
        self.queue.loop_lag = time.monotonic() - since
        for part, result in zip(batch, results, strict=True):
            request = part.request
            if isinstance(result, RequestError):
                _fail(request, result)
            elif not request.future.done():
                request.scores.append(result)
                if part.stop == len(request.names):
                    request.future.set_result(Scores.concatenate(request.scores))


def _require_device(classifier: Classifier) -> None:
    try:
        classifier.check(PROBE)
    except Exception as error:
        error.__context__ = None  # it can name a client's product, and the log has all causes
        raise DeviceError(f"a forward pass fails even for {PROBE!r}: {error}") from error


def _score_alone(classifier: Classifier, part: BatchSlice) -> Result:
    """Score the items of one request, one by one if they fail together."""
    try:
        return classifier.score(part.products)
    except Exception:
        scores = _one_by_one(classifier.score, part.products, part.start)
        return scores if isinstance(scores, RequestError) else Scores.concatenate(scores)


def _one_by_one(
    function: Callable[[Any], Any], items: Sequence[Any], start: int = 0
) -> list[Any] | RequestError:
    """Return `function([item])` of each item, or the error of the first that fails.

    Args:
        start: index of the first item in its request.
    """
    results = []
    for number, item in enumerate(items, start):
        try:
            results.append(function([item]))
        except BaseException as error:
            # By name, because torch may not be imported.
            if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
                return RequestError(503, "the model is out of memory", retry_after=1)
            return RequestError(400, f"item {number}: the model cannot score it")
    return results


def _fail(request: QueuedRequest, error: RequestError) -> None:
    request.cancelled = True
    if not request.future.done():
        request.future.set_exception(error)
