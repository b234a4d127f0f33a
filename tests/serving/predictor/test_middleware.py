"""The middleware around an application that records its requests."""

import asyncio
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from grocer.config.deployment import ServingConfig
from serving.predictor.middleware import RequestMiddleware

pytestmark = pytest.mark.anyio
PATH = "/v1/models/grocer:predict"


def predictor() -> Any:
    return SimpleNamespace(
        name="grocer",
        draining=False,
        bundle=SimpleNamespace(digest="0" * 64),
        batcher=SimpleNamespace(queue=SimpleNamespace(check_capacity=lambda waiting: None)),
        metrics=SimpleNamespace(observe_request=lambda *_: None),
    )


async def post(middleware: RequestMiddleware, *chunks: bytes) -> int:
    """Send a request with the chunks as its body; return the status."""
    messages = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
    messages[-1]["more_body"] = False
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else await asyncio.Event().wait()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": PATH, "headers": []}
    await middleware(scope, receive, send)
    return int(sent[0]["status"])


async def respond(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def test_event_loop_serves_others_between_two_large_bodies() -> None:
    iterations = 0
    started: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.append(iterations)  # here a body is parsed
        await respond(send)

    async def count() -> None:
        nonlocal iterations
        while True:
            iterations += 1
            await asyncio.sleep(0)

    middleware = RequestMiddleware(app, predictor(), ServingConfig())
    counter = asyncio.create_task(count())
    statuses = await asyncio.gather(*(post(middleware, b"x" * 100_000) for _ in range(8)))
    assert set(statuses) == {200}
    counter.cancel()
    assert all(later - earlier >= 4 for earlier, later in pairwise(started))


async def test_large_bodies_have_a_common_budget_which_small_ones_may_exceed() -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await respond(send)

    middleware = RequestMiddleware(app, predictor(), ServingConfig(max_body_bytes=100_000))
    large = [asyncio.create_task(post(middleware, b"x" * 50_000, b"x" * 50_000)) for _ in range(20)]
    await asyncio.wait(large, timeout=0.5)
    small = asyncio.create_task(post(middleware, b"x" * 1000))
    await asyncio.sleep(0)
    release.set()
    statuses = [await task for task in large]
    assert (statuses.count(200), statuses.count(429)) == (16, 4)
    assert await small == 200
    # The budget is released with the requests.
    assert await post(middleware, b"x" * 100_000) == 200
