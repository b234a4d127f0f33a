"""Hostile clients: memory and connections stay bounded, and probes are answered."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPResponse
from itertools import pairwise
from unittest.mock import Mock

import httpx
import pytest

from grocer.config.deployment import ServingConfig
from grocer.release.bundle import LoadedBundle
from serving.predictor.connection import Connection, Turns, connection_limit
from tests.fixtures.predictor_process import POST_HEAD, PREDICT, READY, Running, Start
from tests.serving.predictor.test_server import wait_for

MEGABYTE = 1024**2
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
Connect = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def server(start_server: Start, stub_bundle: LoadedBundle) -> Running:
    """A predictor with at most 64 connections, and 2 s for heads and bodies."""
    settings = ("max_items=16", "body_seconds=2", f"max_body_bytes={MEGABYTE}")
    return start_server(stub_bundle, *settings).wait_until_ready()


@pytest.fixture
def connect(server: Running) -> Iterator[Connect]:
    """Return a function that opens a connection."""
    with ExitStack() as connections:
        yield lambda: connections.enter_context(server.connect())


def open_files(server: Running) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def memory(server: Running, kind: str) -> int:
    """Return `VmRSS` or `VmHWM` (its maximum) in bytes."""
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(kind))


def require_service(server: Running) -> None:
    """Check probes and a prediction on new connections."""
    for path in (READY, "/v2/health/live"):
        assert httpx.get(server.url + path, timeout=20, trust_env=False).status_code == 200
    url, body = server.url + PREDICT, {"instances": ["Milk"]}
    assert httpx.post(url, json=body, timeout=20, trust_env=False).status_code == 200


def status(connection: socket.socket) -> int:
    """Read a response and return its status."""
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def statuses(connection: socket.socket) -> list[int]:
    """Read the responses to pipelined requests until the end of the connection."""
    with connection.makefile("rb") as responses:
        return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d+) ", responses.read())]


def is_closed(connection: socket.socket) -> bool:
    """Wait for the end of the connection; False after a timeout."""
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize(
    ("files", "limit"), [((1024, 4096), 4096 - 64), ((1 << 20, 1 << 20), 4096), ((256, -1), 4096)]
)
def test_connections_fit_the_limit_of_open_files(
    files: tuple[int, int], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [files]
    monkeypatch.setattr(resource, "getrlimit", lambda _: files)
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: chosen.append(pair))
    assert connection_limit(ServingConfig()) == limit
    assert chosen[-1][0] >= limit + 64


def test_incomplete_bodies_use_a_bounded_amount_of_memory(
    server: Running, connect: Connect
) -> None:
    before = memory(server, "VmRSS")
    # Only 32 requests may be in flight, so most of the bodies are discarded.
    clients = [connect() for _ in range(48)]
    for client in clients:
        client.sendall(f"{POST_HEAD}content-length: {MEGABYTE}\r\n\r\n".encode())
        client.sendall(b"x" * (MEGABYTE - 1))
    require_service(server)
    assert memory(server, "VmHWM") - before < 40 * MEGABYTE
    assert {status(client) for client in clients} == {408, 429}
    require_service(server)


@pytest.mark.parametrize(
    "head",
    [
        f"{POST_HEAD}a: {'x' * 40_000}",
        f"{POST_HEAD}a: {'x' * 40_000}\r\n\r\n",
        f"GET /{'x' * 40_000} HTTP/1.1\r\n\r\n",
        POST_HEAD + "a: b\r\n" * 101 + "\r\n",
    ],
    ids=["incomplete", "complete", "path", "many"],
)
def test_large_head_is_400(server: Running, connect: Connect, head: str) -> None:
    client = connect()
    client.sendall(head.encode())
    assert status(client) == 400
    assert is_closed(client)
    require_service(server)


def test_large_trailer_is_400(server: Running, connect: Connect) -> None:
    client = connect()
    head = f"{POST_HEAD}expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{{\r\n"
    client.sendall(head.encode())
    assert client.recv(65536).startswith(b"HTTP/1.1 100")
    client.sendall(b"0\r\na: " + b"x" * 40_000)
    assert status(client) == 400
    assert is_closed(client)


@pytest.mark.parametrize("head", ["", POST_HEAD])
def test_connection_without_a_complete_head_is_closed(
    server: Running, connect: Connect, head: str
) -> None:
    client = connect()
    client.sendall(head.encode())
    assert is_closed(client)


def test_idle_connections_are_closed_for_new_ones(server: Running, connect: Connect) -> None:
    before = open_files(server)
    clients = []
    for _ in range(80):
        clients.append(connect())
        clients[-1].sendall(GET)
        assert status(clients[-1]) == 200
        assert open_files(server) <= before + 65
    require_service(server)
    assert is_closed(clients[0])
    clients[-1].sendall(GET)
    assert status(clients[-1]) == 200


@pytest.mark.parametrize("headers", ["", "connection: upgrade\r\nupgrade: h2c\r\n"])
def test_pipelined_requests_are_limited(server: Running, connect: Connect, headers: str) -> None:
    client = connect()
    client.sendall(f"GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n".encode() * 100)
    assert statuses(client) == [200] * 17 + [400]
    require_service(server)


@pytest.mark.parametrize(
    "invalid",
    [
        "GET",
        "GET / HTTP/1.1\r\n",
        f"{POST_HEAD}a: {'x' * 40_000}\r\n",
        f"{POST_HEAD}transfer-encoding: chunked\r\n\r\n-\r\n",
    ],
    ids=["line", "host", "large", "body"],
)
def test_error_follows_the_responses_to_earlier_requests(connect: Connect, invalid: str) -> None:
    body = '{"instances": ["Milk"]}'
    valid = f"{POST_HEAD}content-length: {len(body)}\r\n\r\n{body}"
    client = connect()
    client.sendall(f"{valid}{valid}{invalid}\r\n".encode())
    client.sendall(valid.encode() * 4)
    assert statuses(client) == [200, 200, 400]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("GET", "invalid HTTP request"),
        (f"{POST_HEAD}content-length: -1", "invalid HTTP request"),
        (f"{POST_HEAD}transfer-encoding: chunked\r\n\r\n-", "invalid HTTP request"),
        ("GET / HTTP/1.1", "expected one Host header"),
        ("GET / HTTP/1.1\r\nhost: x\r\nhost: y", "expected one Host header"),
        ("CONNECT x:1 HTTP/1.1\r\nhost: x", "this server is not a proxy"),
        (POST_HEAD + "a: b\r\n" * 101, "request head too large"),
    ],
)
def test_error_of_the_parser_is_json(connect: Connect, data: str, error: str) -> None:
    client = connect()
    client.sendall(f"{data}\r\n\r\n".encode())
    response = HTTPResponse(client)
    response.begin()
    assert (response.status, response.headers["content-type"]) == (400, "application/json")
    assert json.loads(response.read()) == {"error": error}
    assert is_closed(client)


def test_leading_zeros_of_a_length_are_ignored(connect: Connect) -> None:
    body, client = '{"instances": ["Milk"]}', connect()
    client.sendall(f"{POST_HEAD}content-length: {len(body):05000}\r\n\r\n{body}".encode())
    assert status(client) == 200


@pytest.mark.parametrize("split", [0, 1, 2], ids=["at once", "after the head", "in the head"])
def test_upgrade_to_http2_is_ignored(connect: Connect, split: int) -> None:
    # The request of Java's HTTP client.
    body = b'{"instances": ["Milk"]}'
    upgrade = (
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB"
    )
    head = f"{POST_HEAD}content-length: {len(body)}\r\n{upgrade}\r\n\r\n".encode()
    request, client = head + body, connect()
    cut = (len(request), len(head), len(head) - 50)[split]
    for _ in range(2):
        client.sendall(request[:cut])
        time.sleep(0.05)
        client.sendall(request[cut:])
        assert status(client) == 200


def test_unread_response_has_a_time_limit() -> None:
    connection, transport = Connection.__new__(Connection), Mock(spec=asyncio.Transport)
    connection.transport, connection._seconds = transport, 5.0
    connection._unsent_since = connection._head_bytes = connection.cycle = None
    transport.get_write_buffer_size.return_value = 100
    assert [connection.check(now) for now in (0.0, 5.0)] == [100, 100]
    transport.get_write_buffer_size.return_value = 0
    connection.check(6.0)
    transport.get_write_buffer_size.return_value = 50
    assert [connection.check(now) for now in (7.0, 12.0)] == [50, 50]
    transport.abort.assert_not_called()
    connection.check(12.1)
    transport.abort.assert_called_once_with()


def test_clients_that_do_not_read_are_disconnected(server: Running, connect: Connect) -> None:
    wait_for(lambda: open_files(server) < 40)
    before = open_files(server)
    request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
    clients = [connect() for _ in range(4)]
    for client in clients:
        client.settimeout(0.5)
        with suppress(TimeoutError, ConnectionError):
            for _ in range(1000):  # until all buffers are full
                client.sendall(request * 8)
    require_service(server)
    wait_for(lambda: open_files(server) <= before)


class Upload:
    """A connection that always has more of a body to read."""

    def __init__(self, turns: Turns, reads: list[Upload]) -> None:
        self._turns, self._reads = turns, reads

    def read(self) -> None:
        self._reads.append(self)
        self._turns.add(self)


def test_uploads_are_read_in_turns() -> None:
    async def first_iterations() -> list[int]:
        turns, reads, counts = Turns(), list[Upload](), []
        uploads = [Upload(turns, reads) for _ in range(100)]
        for upload in uploads:
            turns.add(upload)
        for _ in range(20):
            await asyncio.sleep(0)
            counts.append(len(reads))
        assert reads[:100] == uploads
        return counts

    counts = asyncio.run(first_iterations())
    assert max(b - a for a, b in pairwise(counts)) <= 8


def test_a_body_that_arrives_in_many_parts_is_answered(server: Running, connect: Connect) -> None:
    body = b'{"instances": ["Milk"]' + b" " * (MEGABYTE // 2) + b"}"
    client = connect()
    client.sendall(f"{POST_HEAD}content-length: {len(body)}\r\n\r\n".encode())
    for start in range(0, len(body), 10_000):
        client.sendall(body[start : start + 10_000])
    assert status(client) == 200
