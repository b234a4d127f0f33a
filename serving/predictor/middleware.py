"""ASGI middleware around KServe's application.

Unknown routes are rejected. Size, time and content type of a body are checked before KServe sees
it, and the request of a disconnected client is cancelled. Each response has the request id and
the digest of the bundle, and each request is logged and counted.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from grocer.config.deployment import ServingConfig
from serving.predictor import tracing
from serving.predictor.errors import INTERNAL_ERROR, RequestError
from serving.predictor.logs import RateLimit
from serving.predictor.protocol.openapi import routes

if TYPE_CHECKING:
    from serving.predictor.model import Predictor

log = logging.getLogger("grocer.requests")
Scope = dict[str, Any]
Message = dict[str, Any]
App = Callable[..., Any]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_JSON = re.compile(rb'\s*application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?', re.IGNORECASE)
_BINARY = re.compile(rb"\s*application/octet-stream\s*", re.IGNORECASE)
_CLIENT_CLOSED_REQUEST = 499
"""nginx's status of a client that disconnected."""
_SMALL_BODY_BYTES = 64 * 1024
_BUDGET_BODIES = 16
"""Bodies of maximum size that may be in flight together."""
_ITERATIONS = 5
"""Iterations of the event loop between the parsing of two large bodies: enough for a probe."""


class RequestMiddleware:
    """An ASGI application around KServe's."""

    def __init__(self, app: App, predictor: Predictor, config: ServingConfig) -> None:
        self._app, self._config, self._metrics = app, config, predictor.metrics
        self._check_capacity = predictor.batcher.queue.check_capacity
        self._predictor = predictor
        self._model, self._digest = predictor.name, predictor.bundle.digest.encode()
        self._routes = routes(predictor.name, ui=config.ui)
        # In-flight requests: all of them, and those whose body was read.
        self._in_flight = self._read = 0
        self._body_bytes = 0
        self._large = asyncio.Lock()
        self._rejections: dict[int, RateLimit] = {}

    async def __call__(self, scope: Scope, receive: App, send: App) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._in_flight += 1
        exchange = _Exchange(scope, receive, send, self._digest, close=self._predictor.draining)
        started = time.perf_counter()
        route = "unknown"
        try:
            method, route = self._route(scope)
            if method == "GET":
                # uvicorn omits the body of the response to HEAD.
                await self._app({**scope, "method": "GET"}, exchange.receive, exchange.send)
            else:
                await self._post(exchange, route)
        except RequestError as error:
            await exchange.reject(error)
        except asyncio.CancelledError:
            # The grace period of the shutdown is over; uvicorn would answer 500.
            error = RequestError(503, "the server is shutting down", retry_after=1)
            await exchange.reject(error)
        except Exception:
            # uvicorn would close the connection.
            log.exception("unexpected error", extra={"request_id": exchange.id, "route": route})
            await exchange.reject(INTERNAL_ERROR)
        finally:
            self._in_flight -= 1
            self._body_bytes -= exchange.body_bytes
            self._record(exchange, route, time.perf_counter() - started)

    def _route(self, scope: Scope) -> tuple[str, str]:
        """Return method and name of the requested route."""
        path = scope["path"]
        if path not in self._routes:
            if path.startswith(("/v1/models/", "/v2/models/")) and self._model not in path:
                raise RequestError(404, f"model not found; this server has {self._model}")
            raise RequestError(404, "path not found; see /openapi.json")
        method, route = self._routes[path]
        if scope["method"] != method and (method, scope["method"]) != ("GET", "HEAD"):
            allow = "GET, HEAD" if method == "GET" else method
            raise RequestError(405, f"method not allowed; use {method}", allow=allow)
        if self._predictor.draining and route == "ready":
            raise RequestError(503, "the server is shutting down", retry_after=1)
        return method, route

    async def _post(self, exchange: _Exchange, route: str) -> None:
        if self._in_flight > self._config.max_requests:
            raise RequestError(429, "too many in-flight requests", retry_after=1)
        self._check_capacity(self._read)
        exchange.require_content_type(binary=route == "infer")
        body = await self._read_body(exchange)
        if len(body) > _SMALL_BODY_BYTES:
            async with self._large:
                for _ in range(_ITERATIONS):
                    await asyncio.sleep(0)
        # KServe decodes bodies by content type, and CloudEvents by ce-* headers. It passes
        # application/octet-stream on unchanged; the data plane parses it.
        headers = [
            (key, value)
            for key, value in exchange.scope["headers"]
            if key not in (b"content-type", b"x-request-id") and key[:3] != b"ce-"
        ]
        headers.append((b"content-type", b"application/octet-stream"))
        headers.append((b"x-request-id", exchange.id.encode()))
        scope = {**exchange.scope, "headers": headers}
        attributes = {"http.route": scope["path"], "grocer.request_id": exchange.id}
        carrier = {key.decode("latin-1"): value.decode("latin-1") for key, value in headers}
        self._read += 1
        try:
            with tracing.span(f"POST {route}", attributes, carrier) as span:
                await self._until_disconnect(exchange, scope, body)
                span.set_attribute("http.response.status_code", exchange.status)
        finally:
            self._read -= 1

    async def _read_body(self, exchange: _Exchange) -> bytes:
        """Receive the body of a request within limits of size and time.

        Small bodies may exceed the budget of all bodies: large ones that arrive slowly do not
        block them.
        """
        limit, seconds = self._config.max_body_bytes, self._config.body_seconds
        too_large = RequestError(413, f"request body too large: the limit is {limit} bytes")
        length = exchange.header(b"content-length")
        # Without leading zeros, which the parser accepts, because int() limits the digits.
        if length is not None and length.isdigit() and int(length.lstrip(b"0") or b"0") > limit:
            raise too_large
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(seconds):
                while more:
                    message = await exchange.receive()
                    if message["type"] == "http.disconnect":
                        exchange.abandoned = True
                        raise RequestError(400, "the client disconnected")
                    chunk = message.get("body", b"")
                    body += chunk
                    exchange.body_bytes += len(chunk)
                    self._body_bytes += len(chunk)
                    if len(body) > limit:
                        raise too_large
                    exhausted = self._body_bytes > _BUDGET_BODIES * limit
                    if exhausted and len(body) > _SMALL_BODY_BYTES:
                        raise RequestError(429, "too many large bodies in flight", retry_after=1)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise RequestError(408, f"request body not received within {seconds:g} s") from None
        if not body:
            raise RequestError(400, "request body: empty")
        return bytes(body)

    async def _until_disconnect(self, exchange: _Exchange, scope: Scope, body: bytes) -> None:
        """Run the application, and cancel it if the client disconnects."""
        disconnected = asyncio.ensure_future(exchange.receive())
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else await asyncio.shield(disconnected)

        handler = asyncio.create_task(self._app(scope, receive, exchange.send))
        try:
            await asyncio.wait({handler, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            if not handler.done() and not exchange.status:
                exchange.abandoned = True
                handler.cancel()
            await asyncio.wait({handler})
        finally:
            handler.cancel()
            disconnected.cancel()
        if not handler.cancelled():
            handler.result()

    def _record(self, exchange: _Exchange, route: str, seconds: float) -> None:
        """Count and log a request."""
        status = exchange.status or (_CLIENT_CLOSED_REQUEST if exchange.abandoned else 503)
        self._metrics.observe_request(route, status, seconds)
        suppressed: int | None = 0
        if status >= 400:
            # Under attack or overload, a line for each rejected request would delay the others.
            suppressed = self._rejections.setdefault(status, RateLimit()).acquire()
        if suppressed is None:
            return
        probe = route in ("live", "ready", "metrics") and status == 200
        fields = {
            "request_id": exchange.id,
            "route": route,
            "code": status,
            "seconds": round(seconds, 6),
            "abandoned": exchange.abandoned,
            "refused": exchange.error,
            "unlogged": suppressed,
        }
        log.log(logging.DEBUG if probe else logging.INFO, "request", extra=fields)


class _Exchange:
    """A request and its response, with the request id and bundle digest as headers."""

    def __init__(
        self, scope: Scope, receive: App, send: App, digest: bytes, *, close: bool
    ) -> None:
        self.scope, self.receive, self._send = scope, receive, send
        self._digest, self._close = digest, close
        self.status = self.body_bytes = 0
        self.abandoned = False
        self.error = ""
        request_id = (self.header(b"x-request-id") or b"").decode("latin-1")
        self.id = request_id if _REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.scope["headers"] if key == name), None)

    def require_content_type(self, *, binary: bool) -> None:
        """Require JSON in UTF-8, or the binary extension of V2, without compression."""
        kind = self.header(b"content-type")
        if not (kind is None or _JSON.fullmatch(kind) or (binary and _BINARY.fullmatch(kind))):
            raise RequestError(415, "content-type: expected application/json in UTF-8")
        if (self.header(b"content-encoding") or b"identity").lower() != b"identity":
            raise RequestError(415, "content-encoding: compressed bodies are not supported")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self.status:
                return
            self.status = message["status"]
            headers = [(b"x-model-digest", self._digest), (b"x-request-id", self.id.encode())]
            if self._close:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await self._send(message)

    async def reject(self, error: RequestError) -> None:
        """Send an error, unless the response has started."""
        if self.status:
            return
        self.error = error.message
        body = orjson.dumps({"error": error.message})
        headers = {"content-type": "application/json", "content-length": len(body), **error.headers}
        encoded = [(name.encode(), str(value).encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": encoded})
        await self.send({"type": "http.response.body", "body": body})
