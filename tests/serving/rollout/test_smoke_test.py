"""Protects how a predictor elsewhere is asked: waited for, and believed by its digest only."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from grocer.errors import DeployError
from serving.rollout.smoke_test import ask_at

DIGEST = "d" * 64
GOOD = json.dumps({"predictions": [{"department": "produce"}]})
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve these answers (code, digest, body) in turn, the last one for ever."""
    servers = []

    def start(*answers: tuple[int, str, str]) -> str:
        left = list(answers)

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                code, digest, body = left.pop(0) if len(left) > 1 else left[0]
                if not code:  # not even HTTP
                    self.wfile.write(b"\x15\x03\x01\r\n\r\n")
                    return
                self.send_response(code)
                self.send_header("x-model-digest", digest)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_each_answer_carries_its_product(serve: Serve) -> None:
    url = serve((200, DIGEST, GOOD))
    (answer,) = ask_at(url, ["Organic Bananas"], DIGEST, seconds=0)
    assert answer == {"product_name": "Organic Bananas", "department": "produce"}


@pytest.mark.parametrize(
    "first",
    [(503, DIGEST, "not ready"), (200, "f" * 64, GOOD), (0, "", "")],
    ids=["not ready", "the former one", "no HTTP"],
)
def test_what_may_pass_is_waited_out(serve: Serve, first: tuple[int, str, str]) -> None:
    url = serve(first, (200, DIGEST, GOOD))
    assert ask_at(url, ["Organic Bananas"], DIGEST, seconds=60)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, "f" * 64, GOOD), f"serves {'f' * 64}, not {DIGEST}"),
        ((400, DIGEST, "no such name"), "refused: no such name"),
        ((200, DIGEST, "<html>"), "no predictor answers at"),
        ((0, "", ""), "no predictor answers at"),
    ],
    ids=["other digest", "refusal", "no JSON", "no HTTP"],
)
def test_what_does_not_pass_is_one_line(
    serve: Serve, answer: tuple[int, str, str], said: str
) -> None:
    with pytest.raises(DeployError, match=said) as error:
        ask_at(serve(answer), ["Organic Bananas"], DIGEST, seconds=0)
    assert "\n" not in str(error.value)
