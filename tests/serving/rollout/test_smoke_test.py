"""The smoke test: a predictor on loopback, retries, and the digest that must be served."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from grocer.errors import DeployError
from grocer.release.bundle import LoadedBundle
from serving.rollout.smoke_test import predict, request_pods, running_predictor
from tests.fixtures.predictor_process import READY

STUB_COMMAND = ("-m", "tests.fixtures.predictor")
DIGEST = "d" * 64
BODY = json.dumps({"predictions": [{"department": "produce"}]})
Response = tuple[int, str, str]
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve responses (status, digest, body) in turn, repeating the last one."""
    servers = []

    def start(*responses: Response) -> str:
        pending = list(responses)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                code, digest, body = pending.pop(0) if len(pending) > 1 else pending[0]
                if not code:
                    self.wfile.write(b"\x15\x03\x01\r\n\r\n")  # not HTTP
                    return
                self.send_response(code)
                self.send_header("x-model-digest", digest)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("response", [(503, "", "no available server"), (200, "", "ready")])
def test_request_for_pods_accepts_any_response(serve: Serve, response: Response) -> None:
    request_pods(serve(response))


def test_request_for_pods_fails_without_a_gateway() -> None:
    with pytest.raises(DeployError, match=r"127\.0\.0\.1:1.*deploy\.address"):
        request_pods("http://127.0.0.1:1")


def test_prediction_has_its_product_name(serve: Serve) -> None:
    url = serve((200, DIGEST, BODY))
    (prediction,) = predict(url, ["Organic Bananas"], DIGEST, timeout=0)
    assert prediction == {"product_name": "Organic Bananas", "department": "produce"}


@pytest.mark.parametrize(
    "first",
    [(503, DIGEST, "not ready"), (200, "f" * 64, BODY), (0, "", "")],
    ids=["not ready", "previous revision", "not HTTP"],
)
def test_transient_failure_is_retried(serve: Serve, first: Response) -> None:
    url = serve(first, (200, DIGEST, BODY))
    assert predict(url, ["Organic Bananas"], DIGEST, timeout=60)


@pytest.mark.parametrize(
    ("response", "fragment"),
    [
        ((200, "f" * 64, BODY), f"serves bundle {'f' * 64}, expected {DIGEST}"),
        ((400, DIGEST, "no such name"), r"\(400\): no such name"),
        ((200, DIGEST, "<html>"), "no predictor at"),
        ((0, "", ""), "no predictor at"),
    ],
    ids=["other digest", "bad request", "not JSON", "not HTTP"],
)
def test_failure_is_one_line(serve: Serve, response: Response, fragment: str) -> None:
    with pytest.raises(DeployError, match=fragment) as error:
        predict(serve(response), ["Organic Bananas"], DIGEST, timeout=0)
    assert "\n" not in str(error.value)


def test_predictor_runs_until_the_block_ends(stub_bundle: LoadedBundle) -> None:
    with running_predictor(stub_bundle.path, command=STUB_COMMAND) as url:
        assert httpx.get(url + READY).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + READY)


def test_predictor_stops_on_ctrl_c(stub_bundle: LoadedBundle) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        running_predictor(stub_bundle.path, command=STUB_COMMAND) as url,
    ):
        raise KeyboardInterrupt
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + READY)
