"""HTTP connections with limits, so that clients cannot exhaust memory or file descriptors.

uvicorn limits neither the size of a request head, nor the time in which it arrives, nor the time
in which a client reads its response. `enforce` checks all connections periodically, so the time
limits cost nothing per request. uvicorn also reads from all connections at once: thousands of
clients that upload would delay each iteration of the event loop, and so the probes. It loses the
body of a request that asks for another protocol, as Java's HTTP client does for HTTP/2.
"""

from __future__ import annotations

import asyncio
import resource
from collections import deque
from collections.abc import Iterable
from typing import Any

import orjson
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from grocer.config.deployment import ServingConfig

_MAX_HEAD_BYTES = 32 * 1024
_MAX_HEADERS = 100
_HEAD_TOO_LARGE = "request head too large"
_MAX_PIPELINED = 16
"""Maximum requests that a client may send before it receives the response to an earlier one."""
_MAX_UNSENT_BYTES = 128 * 1024**2
"""Maximum bytes of responses that clients have not read yet."""
_RESERVED_FILES = 64
"""File descriptors of the process that are not connections."""
_READERS = 8
"""Connections that read the rest of a body in one iteration of the event loop."""


class _HeadError(ValueError):
    """A request is rejected because of its head; the message is that of the response."""


class Turns:
    """Connections that wait to read the rest of a body, in the order of their requests."""

    def __init__(self) -> None:
        self._waiting: deque[_Flow] = deque()

    def add(self, flow: _Flow) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        self._waiting.append(flow)

    def _next(self) -> None:
        for _ in range(min(_READERS, len(self._waiting))):
            self._waiting.popleft().read()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)


class _Flow(FlowControl):
    """Flow control of a connection that resumes reading when it is its turn."""

    def __init__(self, transport: asyncio.Transport, turns: Turns) -> None:
        super().__init__(transport)
        self._turns, self._waits = turns, False

    def resume_reading(self) -> None:
        if self.read_paused and not self._waits:
            self._waits = True
            self._turns.add(self)

    def read(self) -> None:
        self._waits = False
        super().resume_reading()


class Connection(HttpToolsProtocol):
    """An HTTP/1.1 connection.

    Beyond `limit` connections, those that are idle the longest are closed: new clients, among
    them probes, are served however many connections others keep open.

    Args:
        limit: maximum number of connections.
        seconds: time limit for the head of a request, and for the client to read a response.
        turns: shared by all connections of a server.
    """

    def __init__(self, limit: int, seconds: float, turns: Turns, **options: Any) -> None:
        super().__init__(**options)
        self._limit, self._seconds, self._turns = limit, seconds, turns
        # When the connection was opened or the latest request began.
        self._active = self.loop.time()
        # Bytes since the request began, or since its latest body data; None between requests.
        # They belong to its head, a chunk header or trailers, which the parser keeps in memory.
        self._head_bytes: int | None = 0
        self._unsent_since: float | None = None
        # Why the connection is closed once the requests before an invalid one are answered.
        self._error = ""

    @property
    def is_idle(self) -> bool:
        """Whether no request is being received or answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport, self._turns)
        if len(self.connections) > self._limit:
            idle = [c for c in self.connections if isinstance(c, Connection) and c.is_idle]
            # Several at once, because sorting them for each new one takes too long.
            for connection in sorted(idle, key=lambda c: c._active)[: max(1, self._limit // 16)]:
                connection.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._error:
            return
        self._head_bytes = (self._head_bytes or 0) + len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._serve_without_upgrade(data[upgrade.args[0] :])
        except HttpParserError as error:
            cause = error.__context__
            message = str(cause) if isinstance(cause, _HeadError) else "invalid HTTP request"
            self._fail(message)
            return
        if (self._head_bytes or 0) > _MAX_HEAD_BYTES:
            self._fail(_HEAD_TOO_LARGE)
        # After body data that is not the end of the request.
        if self._head_bytes == 0 and not self.flow.read_paused:
            self.flow.pause_reading()
            self.flow.resume_reading()

    def _serve_without_upgrade(self, rest: bytes) -> None:
        """Parse a request again without the header `upgrade`, which a server may ignore.

        Args:
            rest: what follows its head, which the parser takes as data of the other protocol.
        """
        version = self.parser.get_http_version().encode()
        line = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, version)
        headers = [b"%s: %s\r\n" % each for each in self.headers if each[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.data_received(b"".join([line, *headers, b"\r\n", rest]))

    def _fail(self, message: str) -> None:
        """Send an error after the responses to earlier requests, and close the connection."""
        if self._error or self.transport.is_closing():
            return
        is_body = not self.is_idle and self.cycle.more_body
        if self.is_idle or (is_body and not self.pipeline):
            self.send_400_response(message)
            return
        self._error = message
        if is_body:
            self.pipeline.popleft()

    def on_response_complete(self) -> None:
        if self._error and not self.pipeline and not self.transport.is_closing():
            self.send_400_response(self._error)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        body = orjson.dumps({"error": msg})
        head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._active, self._unsent_since = self.loop.time(), None
        self._head_bytes = self._head_bytes or 0

    def on_headers_complete(self) -> None:
        # One chunk of data can hold a whole head.
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > _MAX_HEAD_BYTES or len(self.headers) > _MAX_HEADERS:
            raise _HeadError(_HEAD_TOO_LARGE)
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts != 1 and self.parser.get_http_version() == "1.1":
            raise _HeadError("expected one Host header")
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _HeadError("this server is not a proxy")
            return  # it is parsed again
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise _HeadError("too many pipelined requests")
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._head_bytes = None
        super().on_message_complete()

    def check(self, now: float) -> int:
        """Close the connection if its client is too slow; return the bytes that it has not read.

        Args:
            now: time of the event loop.
        """
        unsent: int = self.transport.get_write_buffer_size()
        if not unsent:
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif now - self._unsent_since > self._seconds:
            self.transport.abort()
        # A head that is late, or a body that is no longer read. Others have their own time limits.
        is_incomplete = self._head_bytes is not None and self.is_idle
        if is_incomplete and now - self._active > self._seconds:
            self.transport.close()
        return unsent


def connection_limit(config: ServingConfig) -> int:
    """Return the maximum number of connections; raise the limit of open files as necessary."""
    wanted = 2 * config.max_requests
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted + _RESERVED_FILES:
        return wanted
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard - _RESERVED_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + _RESERVED_FILES, hard))
    return wanted


def enforce(connections: Iterable[Any], now: float) -> None:
    """Close connections whose clients are too slow, or together leave too much unread."""
    unsent = {each: each.check(now) for each in list(connections) if isinstance(each, Connection)}
    excess = sum(unsent.values()) - _MAX_UNSENT_BYTES
    for connection in sorted(unsent, key=unsent.__getitem__, reverse=True) if excess > 0 else ():
        if excess > 0:
            excess -= unsent[connection]
            connection.transport.abort()
