"""The smoke test: a predictor on loopback, retries, and the digest that must be served."""

import json
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest

from grocer.errors import DeployError
from grocer.release.bundle import LoadedBundle
from serving.rollout.smoke_test import predict, request_pods, running_predictor
from tests.fixtures.http_server import Handler, Serve
from tests.fixtures.predictor_process import READY

STUB_COMMAND = ("-m", "tests.fixtures.predictor")
DIGEST = "d" * 64
BODY = json.dumps({"predictions": [{"department": "produce"}]})
Response = tuple[int, str, str]
Respond = Callable[..., str]


@pytest.fixture
def respond(serve: Serve) -> Respond:
    """Serve responses (status, digest, body) in turn, repeating the last one."""

    def start(*responses: Response) -> str:
        pending = list(responses)

        class Responder(Handler):
            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                code, digest, body = pending.pop(0) if len(pending) > 1 else pending[0]
                if code:
                    self.reply(code, body, {"x-model-digest": digest})
                else:
                    self.wfile.write(b"\x15\x03\x01\r\n\r\n")  # not HTTP

        return serve(Responder)

    return start


@pytest.mark.parametrize("response", [(503, "", "no available server"), (200, "", "ready")])
def test_request_for_pods_accepts_any_response(respond: Respond, response: Response) -> None:
    request_pods(respond(response))


def test_request_for_pods_fails_without_a_gateway() -> None:
    with pytest.raises(DeployError, match=r"127\.0\.0\.1:1.*deploy\.address"):
        request_pods("http://127.0.0.1:1")


def test_prediction_has_its_product_name(respond: Respond) -> None:
    url = respond((200, DIGEST, BODY))
    (prediction,) = predict(url, ["Organic Bananas"], DIGEST, timeout=0)
    assert prediction == {"product_name": "Organic Bananas", "department": "produce"}


@pytest.mark.parametrize(
    "first",
    [(503, DIGEST, "not ready"), (200, "f" * 64, BODY), (0, "", "")],
    ids=["not ready", "previous revision", "not HTTP"],
)
def test_transient_failure_is_retried(respond: Respond, first: Response) -> None:
    url = respond(first, (200, DIGEST, BODY))
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
def test_failure_is_one_line(respond: Respond, response: Response, fragment: str) -> None:
    with pytest.raises(DeployError, match=fragment) as error:
        predict(respond(response), ["Organic Bananas"], DIGEST, timeout=0)
    assert "\n" not in str(error.value)


def test_predictor_runs_until_the_block_ends(stub_bundle: LoadedBundle) -> None:
    with (
        suppress(KeyboardInterrupt),
        running_predictor(stub_bundle.path, command=STUB_COMMAND) as url,
    ):
        assert httpx.get(url + READY).status_code == 200
        raise KeyboardInterrupt
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + READY)
