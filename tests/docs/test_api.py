"""Tests that responses have the status, headers, keys and types that docs/api.md documents.

The predictors have a stub scorer; tests/serving/predictor/test_model.py covers a real model.
Conditions such as overload are reproduced; numbers in these messages may differ from the page.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from grocer.config.deployment import ServingConfig
from grocer.release.bundle import LoadedBundle
from serving.predictor.protocol.models import AISLE_OUTPUTS, OUTPUTS
from serving.predictor.protocol.openapi import routes
from serving.predictor.protocol.responses import output_types
from tests.docs.documents import ROOT, blocks, error_statuses, in_source, prose, section, table
from tests.fixtures.predictor_process import POST_HEAD, PREDICT, Running, Start

PAGE = (ROOT / "docs" / "api.md").read_text()
ADDRESS = "localhost:8080"
AISLE_EXAMPLES = blocks(section(PAGE, "### With aisles"), "console")
NUMBER = r"[\d.]+"
EXACT_KEYS = {*("name", "datatype", "shape", "error", "id", "model_name", "word", "live", "ready")}
"""Keys whose values are compared; of all others only the type is."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: str | None

    @classmethod
    def parse(cls, command: str) -> Request:
        """Parse a curl command; unknown options are errors."""
        words = iter(shlex.split(command.replace("\\\n", " ")))
        assert next(words) == "curl"
        path, headers, body = "", {}, None
        for word in words:
            match word:
                case "-s" | "-si":
                    pass
                case "-H":
                    name, _, value = next(words).partition(": ")
                    headers[name] = value
                case "-d":
                    body = next(words)
                case _:
                    assert word.startswith(f"{ADDRESS}/"), word
                    path = word.removeprefix(ADDRESS)
        if body is not None:  # curl's default
            headers.setdefault("content-type", "application/x-www-form-urlencoded")
        return cls("GET" if body is None else "POST", path, headers, body)

    def send(self, server: Running) -> httpx.Response:
        return server.client.request(
            self.method, self.path, headers=self.headers, content=self.body
        )


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: Any

    @classmethod
    def parse(cls, text: str) -> Response:
        """Parse a body, or status, headers and body."""
        if not text.startswith("HTTP/1.1 "):
            return cls(200, {}, json.loads(text))
        head, _, body = text.partition("\n\n")
        status, *lines = head.splitlines()
        headers = dict(line.split(": ", 1) for line in lines)
        return cls(int(status.split()[1]), headers, json.loads(body))

    def check(self, response: httpx.Response, ignore: str = "") -> None:
        """Compare with a response; `ignore` is a pattern that is removed from errors."""
        assert response.status_code == self.status, response.text
        for name, value in self.headers.items():
            assert name in response.headers
            if "…" not in value:  # abbreviated on the page
                assert response.headers[name] == value
        body = response.json()
        if ignore:
            expected = re.sub(ignore, "", self.body.pop("error"))
            assert re.sub(ignore, "", body.pop("error")) == expected
        assert list(differences(self.body, body)) == []


def example(block: str) -> tuple[Request, Response]:
    """Return the request after `$ `, with its continuation lines, and the response."""
    match = re.fullmatch(r"\$ ((?:\\\n|'[^']*'|[^'\n\\])+)\n(.*)", block, re.DOTALL)
    assert match, block
    return Request.parse(match[1]), Response.parse(match[2])


def differences(expected: Any, actual: Any, key: str = "response") -> Iterator[str]:
    """Yield the differences in structure, types and exact keys."""
    if type(expected) is not type(actual):
        yield f"{key}: documented {expected!r}, actual {actual!r}"
    elif isinstance(expected, dict):
        if expected.keys() != actual.keys():
            yield f"{key}: documented {sorted(expected)}, actual {sorted(actual)}"
        for name in expected.keys() & actual.keys():
            yield from differences(expected[name], actual[name], name)
    elif isinstance(expected, list):
        if len(expected) != len(actual):
            yield f"{key}: documented {len(expected)} elements, actual {len(actual)}"
        for one, other in zip(expected, actual, strict=False):
            yield from differences(one, other, key)
    elif key in EXACT_KEYS and expected != actual:
        yield f"{key}: documented {expected!r}, actual {actual!r}"


@pytest.mark.parametrize("block", [b for b in blocks(PAGE, "console") if b not in AISLE_EXAMPLES])
def test_example_has_the_documented_response(server: Running, block: str) -> None:
    request, expected = example(block)
    expected.check(request.send(server))


def test_example_with_aisles_has_the_documented_response(server_with_aisles: Running) -> None:
    (block,) = AISLE_EXAMPLES
    request, expected = example(block)
    expected.check(request.send(server_with_aisles))


def test_binary_example_prints_the_documented_output(server: Running) -> None:
    text = section(PAGE, "### Binary tensor data")
    (program,), (output,) = blocks(text, "python"), blocks(text, "json")
    assert f"http://{ADDRESS}" in program
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(program.replace(f"http://{ADDRESS}", server.url), "docs/api.md", "exec"), {})
    expected = [json.loads(line) for line in output.splitlines()]
    actual = [json.loads(line) for line in printed.getvalue().splitlines()]
    assert list(differences(expected, actual)) == []


def documented(status: int) -> Response:
    """Return the response of a status that has no request on the page."""
    (block,) = blocks(section_of(status))
    return Response.parse(block)


def section_of(status: int) -> str:
    heading = re.search(rf"^### {status}: .+$", PAGE, re.MULTILINE)
    assert heading, f"no heading for {status}"
    return section(PAGE, heading[0])


@contextlib.contextmanager
def request_without_body(server: Running) -> Iterator[socket.socket]:
    """Yield a connection with an in-flight request whose body does not arrive."""
    with server.connect() as connection:
        connection.sendall(f"{POST_HEAD}content-length: 9\r\n\r\n".encode())
        yield connection


def test_slow_body_is_the_documented_408(server: Running) -> None:
    with request_without_body(server) as connection, HTTPResponse(connection) as received:
        received.begin()
        headers, body = received.getheaders(), received.read()
    documented(408).check(httpx.Response(received.status, headers=headers, content=body), NUMBER)
    assert server.predict("Milk").status_code == 200


def test_large_body_is_the_documented_413(server: Running) -> None:
    documented(413).check(server.post(PREDICT, content=b"x" * 200_001), NUMBER)


def test_too_many_requests_are_the_documented_429(
    start_server: Start, stub_bundle: LoadedBundle
) -> None:
    running = start_server(stub_bundle, "max_items=1").wait_until_ready()
    # Two requests may be in flight.
    with request_without_body(running), request_without_body(running):
        responses = iter(lambda: running.predict("Milk"), None)
        documented(429).check(next(r for r in islice(responses, 1000) if r.status_code != 200))


def test_loading_model_is_the_documented_503(
    start_server: Start, stub_bundle: LoadedBundle, tmp_path: Path
) -> None:
    running = start_server(stub_bundle, hold=tmp_path / "never")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            return documented(503).check(running.predict("Milk"))
        time.sleep(0.02)
    raise AssertionError(running.log.read_text())


def test_timeout_is_the_documented_504(start_server: Start, stub_bundle: LoadedBundle) -> None:
    running = start_server(stub_bundle, "deadline_seconds=0.1").wait_until_ready()
    documented(504).check(running.predict("slow"), NUMBER)


def test_messages_in_the_text_are_in_the_source() -> None:
    quoted = re.findall(r"`([^`]+)`", prose(section(PAGE, "## Errors")))
    messages = [message for message in quoted if " " in message]
    assert len(messages) == 5
    for message in (*messages, documented(500).body["error"]):
        assert in_source(message), message


def test_every_status_of_an_error_is_documented() -> None:
    statuses = error_statuses()
    assert sorted(map(int, re.findall(r"^### (\d+): ", PAGE, re.MULTILINE))) == sorted(statuses)
    for status in statuses:
        shown = set(re.findall(r"^HTTP/1.1 (\d+)", section_of(status), re.MULTILINE))
        assert shown == {str(status)}


def test_table_of_endpoints_matches_the_routes() -> None:
    rows = table(section(PAGE, "## Endpoints"))
    methods = {path: row[1] for row in rows for path in re.findall(r"`([^`]+)`", row[0])}
    open_routes = routes("grocer", ui=True)
    assert methods == {path: method for path, (method, _) in open_routes.items()}


def test_table_of_outputs_matches_the_model_metadata() -> None:
    rows = table(section(PAGE, "## V2: infer").partition("### Binary")[0])
    dimensions = {"[n]": [-1], "[n, top_k]": [-1, -1]}
    documented_types = [
        {"name": name.strip("`"), "datatype": datatype, "shape": dimensions[shape]}
        for names, datatypes, shape, _ in rows
        for name, datatype in zip(names.split(", "), datatypes.split(", ") * 2, strict=False)
    ]
    assert documented_types == output_types(OUTPUTS + AISLE_OUTPUTS)


def test_table_of_limits_has_the_defaults() -> None:
    for setting, text, status in table(section(PAGE, "## Limits")):
        default = getattr(ServingConfig(), setting.strip("`"))
        assert float(text.split()[0].replace(",", "")) == default, setting
        assert section_of(int(status))


def test_table_of_metrics_matches_the_exported_metrics(server: Running) -> None:
    families = text_string_to_metric_families(server.get("/metrics").text)
    types = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in families
        if family.name.startswith("grocer_") and not family.name.endswith("_created")
    }
    rows = table(section(PAGE, "## Metrics"))
    assert {name.strip("`"): row[1] for row in rows for name in row[0].split(", ")} == types


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({"probability": 0.9}, {"probability": 1}),
        ({"probability": 0.9}, {"probability": 0.9, "more": 1}),
        ({"alternatives": [{"department": "a"}]}, {"alternatives": []}),
        ({"department": None}, {"department": "produce"}),
        ({"datatype": "FP32"}, {"datatype": "FP64"}),
        ({"shape": [2, 2]}, {"shape": [4, 1]}),
        ({"error": "no"}, {"error": "No"}),
    ],
)
def test_differences_are_found(expected: Any, actual: Any) -> None:
    assert list(differences(expected, actual))
    assert not list(differences(expected, expected))
