"""Protects docs/api.md: its requests are sent, and the answers have the status and shape it shows.

Requests go over HTTP to predictors as they are served, around the toy scorer: that a real one's
answers go the same way is tested in tests/serving/test_real.py. What only a loaded, slow or loading
predictor answers is staged; there, numbers of a message may differ from the page's.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shlex
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from grocer.config.deployment import ServingConfig
from grocer.release.bundle import Bundle
from serving.predictor import protocol
from serving.predictor import responses as answers
from serving.predictor.middleware import routes
from tests.docs.documents import ROOT, blocks, prose, section, table
from tests.docs.test_troubleshooting import is_said
from tests.serving.conftest import Running, Start

PAGE = (ROOT / "docs" / "api.md").read_text()
HERE = "localhost:8080"
PREDICT = "/v1/models/grocer:predict"
AISLES = blocks(section(PAGE, "### With aisles"), "console")
NUMBER = r"[\d.]+"
EXACT = {"name", "datatype", "shape", "error", "id", "model_name", "word", "live", "ready"}
"""Keys whose values are the contract too; of all others only the type is."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: str | None

    @classmethod
    def read(cls, command: str) -> Request:
        """A curl command of the page; an option that is not known here is an error."""
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
                    assert word.startswith(f"{HERE}/"), word
                    path = word.removeprefix(HERE)
        if body is not None:  # as curl does
            headers.setdefault("content-type", "application/x-www-form-urlencoded")
        return cls("GET" if body is None else "POST", path, headers, body)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any

    @classmethod
    def read(cls, text: str) -> Answer:
        """What a block shows: a body, or status, headers and body."""
        if not text.startswith("HTTP/1.1 "):
            return cls(200, {}, json.loads(text))
        head, _, body = text.partition("\n\n")
        status, *lines = head.splitlines()
        headers = dict(line.split(": ", 1) for line in lines)
        return cls(int(status.split()[1]), headers, json.loads(body))


def example(block: str) -> tuple[Request, Answer]:
    """The request behind `$ `, with its continued lines, and the answer below."""
    found = re.fullmatch(r"\$ ((?:\\\n|'[^']*'|[^'\n\\])+)\n(.*)", block, re.DOTALL)
    assert found, block
    return Request.read(found[1]), Answer.read(found[2])


def differences(told: Any, found: Any, key: str = "the answer") -> Iterator[str]:
    """Where an answer's shape is not what the page tells."""
    if type(told) is not type(found):
        yield f"{key}: the page has {told!r}, the predictor {found!r}"
    elif isinstance(told, dict):
        if told.keys() != found.keys():
            yield f"{key}: the page has {sorted(told)}, the predictor {sorted(found)}"
        for name in told.keys() & found.keys():
            yield from differences(told[name], found[name], name)
    elif isinstance(told, list):
        if len(told) != len(found):
            yield f"{key}: the page has {len(told)} elements, the predictor {len(found)}"
        for one, other in zip(told, found, strict=False):
            yield from differences(one, other, key)
    elif key in EXACT and told != found:
        yield f"{key}: the page has {told!r}, the predictor {found!r}"


def check(told: Answer, found: httpx.Response, mask: str = "") -> None:
    """Compare; what `mask` matches in an error is left out of it."""
    assert found.status_code == told.status, found.text
    for name, value in told.headers.items():
        assert name in found.headers
        if "…" not in value:  # as the page shortens what differs from run to run
            assert found.headers[name] == value
    body = found.json()
    if mask:
        assert re.sub(mask, "", told.body.pop("error")) == re.sub(mask, "", body.pop("error"))
    assert list(differences(told.body, body)) == []


def ask(server: Running, request: Request) -> httpx.Response:
    return server.client.request(
        request.method, request.path, headers=request.headers, content=request.body
    )


@pytest.mark.parametrize("block", [b for b in blocks(PAGE, "console") if b not in AISLES])
def test_an_example_gets_the_answer_that_it_shows(server: Running, block: str) -> None:
    request, told = example(block)
    check(told, ask(server, request))


def test_aisles_are_answered_as_shown(levelled: Running) -> None:
    (block,) = AISLES
    request, told = example(block)
    check(told, ask(levelled, request))


def test_the_binary_example_runs_and_prints_what_it_shows(server: Running) -> None:
    text = section(PAGE, "### Binary")
    (program,), (shown,) = blocks(text, "python"), blocks(text, "json")
    assert f"http://{HERE}" in program
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(program.replace(f"http://{HERE}", server.url), "docs/api.md", "exec"), {})
    told = [json.loads(line) for line in shown.splitlines()]
    found = [json.loads(line) for line in printed.getvalue().splitlines()]
    assert list(differences(told, found)) == []


def staged(code: int) -> Answer:
    """The answer that stands below a status without a request."""
    (block,) = blocks(below(code))
    return Answer.read(block)


def below(code: int) -> str:
    """What the page tells of a status."""
    heading = re.search(rf"^### {code}: .+$", PAGE, re.MULTILINE)
    assert heading, f"no heading for {code}"
    return section(PAGE, heading[0])


@contextlib.contextmanager
def body_to_come(server: Running) -> Iterator[socket.socket]:
    """A connection whose request is in hand, as its body has not arrived."""
    with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port)) as line:
        line.settimeout(20)
        line.sendall(f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n".encode())
        yield line


def test_a_slow_body_gets_the_408_of_the_page(server: Running) -> None:
    with body_to_come(server) as line, line.makefile("rb") as file:
        status = int(file.readline().split()[1])
        lines = iter(file.readline, b"\r\n")
        headers = dict(line.decode().strip().lower().split(": ", 1) for line in lines)
        body = file.read(int(headers["content-length"]))
    check(staged(408), httpx.Response(status, headers=headers, content=body), NUMBER)


def test_a_large_body_gets_the_413_of_the_page(server: Running) -> None:
    check(staged(413), server.post(PREDICT, content=b"x" * 200_001), NUMBER)


def test_one_request_too_many_gets_the_429_of_the_page(
    start_any: Start, stub_bundle: Bundle
) -> None:
    running = start_any(stub_bundle, "max_items=1").until_ready()
    with body_to_come(running), body_to_come(running):
        answers_ = iter(lambda: running.predict("Milk"), None)
        check(staged(429), next(a for a in islice(answers_, 1000) if a.status_code != 200))


def test_a_model_that_loads_gets_the_503_of_the_page(
    start_any: Start, stub_bundle: Bundle, tmp_path: Path
) -> None:
    running = start_any(stub_bundle, hold=tmp_path / "never")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            return check(staged(503), running.predict("Milk"))
        time.sleep(0.02)
    raise AssertionError(running.log.read_text())


def test_a_late_answer_gets_the_504_of_the_page(start_any: Start, stub_bundle: Bundle) -> None:
    running = start_any(stub_bundle, "deadline_seconds=0.1").until_ready()
    check(staged(504), running.predict("slow"), NUMBER)


def test_what_can_not_be_staged_is_still_said() -> None:
    told = re.findall(r"`([^`]+)`", prose(section(PAGE, "## Errors")))
    messages = [message for message in told if " " in message]
    assert len(messages) == 3
    for message in (*messages, staged(500).body["error"]):
        assert is_said(message), message


def test_every_status_of_a_refusal_has_its_example() -> None:
    codes = {
        node.args[0].value
        for path in (ROOT / "serving").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal"
    }
    assert sorted(map(int, re.findall(r"^### (\d+): ", PAGE, re.MULTILINE))) == sorted(codes)
    for code in codes:
        assert set(re.findall(r"^HTTP/1.1 (\d+)", below(code), re.MULTILINE)) == {str(code)}


def test_the_table_of_paths_is_what_is_open() -> None:
    rows = table(PAGE.partition("## V1")[0])
    told = {path: row[1] for row in rows for path in re.findall(r"`([^`]+)`", row[0])}
    assert told == {path: method for path, (method, _) in routes("grocer", ui=True).items()}


def test_the_table_of_outputs_is_what_v2_has() -> None:
    rows = table(section(PAGE, "## V2: infer").partition("### Binary")[0])
    told = {
        name: (kind, shape)
        for names, kinds, shape, _ in rows
        for name, kind in zip(names.split(", "), kinds.split(", ") * 2, strict=False)
    }
    dimensions = {"[n]": [-1], "[n, top_k]": [-1, -1]}
    found = answers.output_types(protocol.OUTPUTS + protocol.AISLE_OUTPUTS)
    assert [
        {"name": name.strip("`"), "datatype": kind, "shape": dimensions[shape]}
        for name, (kind, shape) in told.items()
    ] == found


def test_the_table_of_limits_has_the_defaults() -> None:
    rows = table(section(PAGE, "## Limits"))
    for setting, told, code in rows:
        default = getattr(ServingConfig(), setting.strip("`"))
        assert float(told.split()[0].replace(",", "")) == default, setting
        assert below(int(code))


def test_the_table_of_metrics_is_what_is_exposed(server: Running) -> None:
    families = text_string_to_metric_families(server.get("/metrics").text)
    found = {
        f.name + ("_total" if f.type == "counter" else ""): f.type
        for f in families
        if f.name.startswith("grocer_") and not f.name.endswith("_created")
    }
    rows = table(section(PAGE, "## Metrics"))
    assert {name.strip("`"): row[1] for row in rows for name in row[0].split(", ")} == found


@pytest.mark.parametrize(
    ("told", "found"),
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
def test_another_shape_is_seen(told: Any, found: Any) -> None:
    assert list(differences(told, found))
    assert not list(differences(told, told))
