"""What stands around KServe's application: only known routes, sane bodies, and calm refusals.

KServe's server by itself lets anybody unload the model, takes a body of any size, echoes what it
could not read, and closes the connection when something escapes. Here a request is cut to size
before KServe sees it, and every answer carries the model's digest and the request's id.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import orjson

from grocer.config.deployment import ServingConfig
from serving.predictor import tracing
from serving.predictor.errors import Refusal
from serving.predictor.logs import Sparse
from serving.predictor.metrics import Metrics

log = logging.getLogger("grocer.requests")
Scope = dict[str, Any]
Message = dict[str, Any]
App = Callable[..., Any]

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_JSON = re.compile(rb'\s*application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?', re.IGNORECASE)
_BINARY = re.compile(rb"\s*application/octet-stream\s*", re.IGNORECASE)
_READINESS = ("ready", "model")


def routes(model: str, *, ui: bool) -> dict[str, tuple[str, str]]:
    """Path → (method, name for metrics and logs). Every other path is closed."""
    v1, v2 = f"/v1/models/{model}", f"/v2/models/{model}"
    open_paths = {
        "/": ("GET", "live"),
        "/metrics": ("GET", "metrics"),
        "/openapi.json": ("GET", "openapi"),
        "/v1/models": ("GET", "models"),
        v1: ("GET", "ready"),
        f"{v1}:predict": ("POST", "predict"),
        f"{v1}:explain": ("POST", "explain"),
        "/v2": ("GET", "server"),
        "/v2/health/live": ("GET", "live"),
        "/v2/health/ready": ("GET", "ready"),
        "/v2/models": ("GET", "models"),
        v2: ("GET", "model"),
        f"{v2}/ready": ("GET", "ready"),
        f"{v2}/infer": ("POST", "infer"),
    }
    return open_paths | ({"/ui": ("GET", "ui")} if ui else {})


class Guard:
    """An ASGI application around another.

    Attributes:
        draining: whether the server is about to stop: it still answers, but says that it is not
            ready and asks clients to connect anew.
    """

    def __init__(
        self,
        app: App,
        config: ServingConfig,
        metrics: Metrics,
        require_room: Callable[[int], None],
        model: str,
        digest: str,
    ) -> None:
        self._app, self._config, self._metrics = app, config, metrics
        self._require_room = require_room
        self._model, self._digest = model, digest.encode()
        self._routes = routes(model, ui=config.ui)
        # Not answered yet: of all requests, and of those whose body was read.
        self._in_hand = self._read = 0
        self._overloads = Sparse()
        self.draining = False

    async def __call__(self, scope: Scope, receive: App, send: App) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
                return
            await self._app(scope, receive, send)
            return
        self._in_hand += 1
        exchange = _Exchange(scope, receive, send, self._digest, close=self.draining)
        started = time.perf_counter()
        route = "unknown"
        try:
            method, route = self._open(scope)
            await self._pass_on(exchange, method, route)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except Exception:
            # KServe would send its text to the client and close the connection.
            log.exception("unexpected error", extra={"request_id": exchange.id, "route": route})
            await exchange.refuse(Refusal(500, "internal error; the server's log has the details"))
        finally:
            self._in_hand -= 1
            seconds = time.perf_counter() - started
            # nginx's number for a client that did not wait for its answer.
            exchange.status = exchange.status or 499
            self._metrics.requested(route, exchange.status, seconds)
            self._record(exchange, route, seconds)

    def _open(self, scope: Scope) -> tuple[str, str]:
        """The route's method and name."""
        path = scope["path"]
        if path not in self._routes:
            if path.startswith(("/v1/models/", "/v2/models/")) and self._model not in path:
                raise Refusal(404, f"no such model; this server has {self._model}")
            raise Refusal(404, "no such route; see /openapi.json")
        method, route = self._routes[path]
        if scope["method"] != method:
            raise Refusal(405, f"only {method} is answered here")
        if self.draining and route == "ready":
            raise Refusal(503, "the server is stopping", retry_after=1)
        return method, route

    async def _pass_on(self, exchange: _Exchange, method: str, route: str) -> None:
        scope = exchange.scope
        if method == "GET":
            await self._app(scope, exchange.receive, exchange.send)
            return
        if self._in_hand > self._config.max_requests:
            raise Refusal(429, "too many requests are in hand", retry_after=1)
        self._require_room(self._read)
        _require_readable(scope, binary=route == "infer")
        body = await self._body(exchange)
        self._read += 1
        try:
            await self._ask(exchange, route, body)
        finally:
            self._read -= 1

    async def _ask(self, exchange: _Exchange, route: str, body: bytes) -> None:
        """Hand a request that was read to the application."""
        scope = exchange.scope
        # KServe decodes by content type, and turns cloud events into something else. It gets
        # plain bytes, which `serving.predictor.StrictDataPlane` reads.
        kept = [(k, v) for k, v in scope["headers"] if k != b"content-type" and k[:3] != b"ce-"]
        plain = (b"content-type", b"application/octet-stream")
        identity = (b"x-request-id", exchange.id.encode())
        headers = [*(pair for pair in kept if pair[0] != b"x-request-id"), plain, identity]
        told = {"http.route": scope["path"], "grocer.request_id": exchange.id}
        carrier = {key.decode("latin-1"): value.decode("latin-1") for key, value in headers}
        with tracing.span(f"POST {route}", told, carrier) as span:
            await self._until_disconnect(exchange, {**scope, "headers": headers}, body)
            span.set_attribute("http.response.status_code", exchange.status)

    async def _until_disconnect(self, exchange: _Exchange, scope: Scope, body: bytes) -> None:
        """Run the application, and cancel it when the client goes away."""
        message: Message | None = {"type": "http.request", "body": body, "more_body": False}
        gone = asyncio.ensure_future(exchange.receive())

        async def replay() -> Message:
            nonlocal message
            if message is None:
                return await asyncio.shield(gone)
            first, message = message, None
            return first

        handler = asyncio.create_task(self._app(scope, replay, exchange.send))
        try:
            await asyncio.wait({handler, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not handler.done() and not exchange.status:
                exchange.abandoned = True
                handler.cancel()
            await asyncio.wait({handler})
        finally:
            handler.cancel()
            gone.cancel()
        if not handler.cancelled():
            handler.result()

    async def _body(self, exchange: _Exchange) -> bytes:
        limit = self._config.max_body_bytes
        told = exchange.header(b"content-length")
        if told is not None and told.isdigit() and int(told) > limit:
            raise Refusal(413, f"the body may have at most {limit} bytes")
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._config.body_seconds):
                while True:
                    message = await exchange.receive()
                    if message["type"] == "http.disconnect":
                        exchange.abandoned = True
                        raise Refusal(400, "the client went away")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise Refusal(413, f"the body may have at most {limit} bytes")
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refusal(
                408, f"the body did not arrive within {self._config.body_seconds:g} s"
            ) from None
        if not size:
            raise Refusal(400, "the body is empty")
        return b"".join(parts)

    def _record(self, exchange: _Exchange, route: str, seconds: float) -> None:
        quiet = route in ("live", "ready", "metrics") and exchange.status == 200
        # Under an overload, a line for each refusal would take time from the answers.
        unlogged = self._overloads.due() if exchange.status == 429 else 0
        if unlogged is None:
            return
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "request",
            extra={
                "request_id": exchange.id,
                "route": route,
                "code": exchange.status,
                "seconds": round(seconds, 6),
                **({"abandoned": True} if exchange.abandoned else {}),
                **({"refused": exchange.refused} if exchange.refused else {}),
                **({"unlogged": unlogged} if unlogged else {}),
            },
        )


class _Exchange:
    """One request and its answer, whose head gets our headers on its way out."""

    def __init__(
        self, scope: Scope, receive: App, send: App, digest: bytes, *, close: bool
    ) -> None:
        self.scope, self.receive, self._send = scope, receive, send
        self._digest, self._close = digest, close
        self.status = 0
        self.abandoned = False
        self.refused = ""
        given = (self.header(b"x-request-id") or b"").decode("latin-1")
        self.id = given if _ID.fullmatch(given) else uuid.uuid4().hex

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.scope["headers"] if key == name), None)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self.status:
                return
            self.status = message["status"]
            more = [(b"x-model-digest", self._digest), (b"x-request-id", self.id.encode())]
            if self._close:
                more.append((b"connection", b"close"))
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Send a refusal, unless an answer has begun."""
        if self.status:
            return
        self.refused = refusal.message
        body = orjson.dumps({"error": refusal.message})
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **refusal.headers,
        }
        encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
        await self.send(
            {"type": "http.response.start", "status": refusal.status, "headers": encoded}
        )
        await self.send({"type": "http.response.body", "body": body})


def _require_readable(scope: Scope, *, binary: bool) -> None:
    """JSON in UTF-8, or V2's binary extension; not compressed."""
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type")
    fits = kind is None or _JSON.fullmatch(kind) or (binary and _BINARY.fullmatch(kind))
    if not fits:
        raise Refusal(415, "content-type: expected application/json in UTF-8")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refusal(415, "content-encoding: compressed bodies are not read")
