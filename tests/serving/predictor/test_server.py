"""What a client sees of a predictor that lives: answers, refusals, routes, headers, metrics."""

from __future__ import annotations

import json
import re
import socket
import struct
from contextlib import ExitStack
from http.client import HTTPConnection

import httpx
import numpy as np
import orjson
import pytest
from kserve import InferInput, InferRequest
from kserve.protocol.infer_type import InferResponse, RequestedOutput

from grocer.release.bundle import Bundle
from tests.fixtures.artifacts import LABELS
from tests.fixtures.predictor import StubScorer
from tests.serving.conftest import READY, Running, Start

PREDICT, INFER = "/v1/models/grocer:predict", "/v2/models/grocer/infer"
NAMES = ["Organic Bananas", "Crème fraîche", "牛乳"]


def infer(server: Running, names: list[str], **more: object) -> httpx.Response:
    tensor = {"name": "product_name", "datatype": "BYTES", "shape": [len(names)], "data": names}
    return server.post(INFER, json={"inputs": [tensor], **more})


def test_v1_gives_the_scorers_best_with_alternatives(server: Running) -> None:
    answer = server.predict(*NAMES, top_k=3).json()["predictions"]
    expected = StubScorer(LABELS).predict(NAMES).probabilities
    for prediction, row in zip(answer, expected, strict=True):
        assert prediction["department"] == LABELS[row.argmax()]
        assert prediction["probability"] == pytest.approx(row.max(), abs=1e-6)
        assert [a["probability"] for a in prediction["alternatives"]] == pytest.approx(
            sorted(row, reverse=True), abs=1e-6
        )
        assert prediction["alternatives"][0]["department"] == prediction["department"]


def test_v2_says_the_same_as_v1(server: Running) -> None:
    first = server.predict(*NAMES, top_k=2).json()["predictions"]
    answer = infer(server, NAMES, parameters={"top_k": 2}, id="seven").json()
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert answer["id"] == "seven"
    assert outputs["department"]["data"] == [p["department"] for p in first]
    assert outputs["probability"]["data"] == pytest.approx([p["probability"] for p in first], 1e-5)
    assert outputs["ranked_departments"]["shape"] == [3, 2]
    ranked = [a["department"] for p in first for a in p["alternatives"]]
    assert outputs["ranked_departments"]["data"] == ranked
    assert outputs["probability"]["datatype"] == "FP32"


def test_below_min_probability_no_department_is_named(server: Running) -> None:
    answer = server.predict(*NAMES, min_probability=1.0).json()["predictions"]
    assert [p["department"] for p in answer] == [None] * 3
    assert all(p["alternatives"] for p in answer)
    outputs = infer(server, NAMES, parameters={"min_probability": 1.0}).json()["outputs"]
    assert outputs[0]["data"] == [""] * 3


def test_kserves_own_client_classes_speak_binary_with_it(server: Running) -> None:
    tensor = InferInput("product_name", [3], "BYTES")
    tensor.set_data_from_numpy(np.array(NAMES, dtype=object), binary_data=True)
    wanted = [RequestedOutput(n, {"binary_data": True}) for n in ("department", "probability")]
    body, length = InferRequest("grocer", [tensor], request_outputs=wanted).to_rest()
    headers = {"content-type": "application/octet-stream"}
    headers["inference-header-content-length"] = str(length)
    answer = server.post(INFER, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    told = int(answer.headers["inference-header-content-length"])
    read = InferResponse.from_bytes(answer.content, told)
    expected = StubScorer(LABELS).predict(NAMES).probabilities
    found = read.get_output_by_name("probability").as_numpy()
    np.testing.assert_allclose(found, expected.max(axis=1), rtol=1e-6)
    names = read.get_output_by_name("department").as_numpy().tolist()
    assert names == [LABELS[i] for i in expected.argmax(axis=1)]


def test_an_explanation_gives_each_word_its_effect(server: Running) -> None:
    body = {"instances": ["Organic Bananas", "Milk"]}
    found = server.post("/v1/models/grocer:explain", json=body).json()["explanations"]
    rows = StubScorer(LABELS).predict(["Organic Bananas", "Bananas", "Organic"]).probabilities
    best = rows[0].argmax()
    assert found[0]["department"] == LABELS[best]
    assert [w["word"] for w in found[0]["words"]] == ["Organic", "Bananas"]
    assert [w["effect"] for w in found[0]["words"]] == pytest.approx(
        [rows[0, best] - rows[1, best], rows[0, best] - rows[2, best]], abs=2e-6
    )
    assert len(found[1]["words"]) == 1


def test_an_explanation_has_limits_of_its_own(server: Running) -> None:
    for instances in (["Milk"] * 17, ["a " * 41]):
        body = {"instances": instances}
        answer = server.post("/v1/models/grocer:explain", json=body)
        assert answer.status_code == 400


def test_an_explanation_does_not_send_the_requests_headers_back(server: Running) -> None:
    body, headers = {"instances": ["Milk"]}, {"authorization": "Bearer secret"}
    answer = server.post("/v1/models/grocer:explain", json=body, headers=headers)
    assert "authorization" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", "/v2/repository/models/grocer/unload", 404),
        ("POST", "/v2/repository/models/grocer/load", 404),
        ("POST", "/v2/repository/index", 404),
        ("POST", "/v2/models/grocer/versions/1/infer", 404),
        ("POST", "/v1/models/other:predict", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", "/docs", 404),
        ("GET", "/ui", 404),
        ("GET", PREDICT, 405),
        ("DELETE", "/", 405),
        ("HEAD", "/metrics", 405),
    ],
)
def test_what_is_not_open_is_closed(server: Running, method: str, path: str, code: int) -> None:
    answer = server.client.request(method, path)
    assert answer.status_code == code
    assert method == "HEAD" or list(answer.json()) == ["error"]
    assert server.get(READY).json() == {"name": "grocer", "ready": True}


def test_every_answer_tells_the_models_digest_and_the_requests_id(
    server: Running, stub_bundle: Bundle
) -> None:
    for path in ("/", "/metrics", "/nowhere", READY, "/openapi.json", PREDICT):
        answer = server.get(path, headers={"x-request-id": "abc-1"})
        assert answer.headers["x-model-digest"] == stub_bundle.digest
        assert answer.headers["x-request-id"] == "abc-1"
    strange = server.get("/", headers={"x-request-id": "a b\t<script>"})
    assert re.fullmatch("[0-9a-f]{32}", strange.headers["x-request-id"])


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON;charset=UTF-8", 200),
        (None, 200),
        ("application/json; charset=latin-1", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("application/cloudevents+json", 415),
        ("application/octet-stream", 415),
    ],
)
def test_v1_reads_json_in_utf8_only(server: Running, kind: str | None, code: int) -> None:
    headers = {} if kind is None else {"content-type": kind}
    body = b'{"instances": ["Milk"]}'
    assert server.post(PREDICT, content=body, headers=headers).status_code == code


def test_compressed_bodies_and_cloud_events_are_not_interpreted(server: Running) -> None:
    body = {"instances": ["Milk"]}
    zipped = server.post(PREDICT, json=body, headers={"content-encoding": "gzip"})
    assert zipped.status_code == 415
    event = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "s"}
    answer = server.post(PREDICT, json=body, headers=event)
    assert list(answer.json()) == ["predictions"]


def test_a_body_that_is_too_large_is_413_and_the_connection_lives_on(server: Running) -> None:
    with httpx.Client(base_url=server.url) as client:
        for body in (b"x" * 200_001, (b"x" * 50_000 for _ in range(5))):
            answer = client.post(
                PREDICT, content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 413
        assert client.post(PREDICT, json={"instances": ["Milk"]}).status_code == 200


def test_refusals_keep_the_connection(server: Running) -> None:
    line = HTTPConnection("127.0.0.1", httpx.URL(server.url).port, timeout=10)
    line.connect()
    first = line.sock
    for path, body, code in (
        (PREDICT, b"{", 400),
        (INFER, b"{", 400),
        (PREDICT, b'{"instances": [1]}', 400),
        ("/nowhere", b"{}", 404),
        (PREDICT, b'{"instances": ["Milk"]}', 200),
    ):
        line.request("POST", path, body)
        answer = line.getresponse()
        answer.read()
        assert (answer.status, answer.will_close, line.sock is first) == (code, False, True)
    line.close()


def test_a_slow_body_is_given_up(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port)) as line:
        line.settimeout(10)
        line.sendall(f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{{".encode())
        assert line.recv(65536).startswith(b"HTTP/1.1 408")
    assert server.predict("Milk").status_code == 200


def test_bodies_that_do_not_come_take_no_room(start_any: Start, stub_bundle: Bundle) -> None:
    server = start_any(stub_bundle, "queue_seconds=0.1", "token_budget=8").until_ready()
    address = ("127.0.0.1", httpx.URL(server.url).port)
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n".encode()
    for _ in range(3):
        assert server.predict("slow").status_code == 200  # passes are now expected to take long
    with ExitStack() as lines:
        for _ in range(50):
            lines.enter_context(socket.create_connection(address)).sendall(head)
        assert server.predict("Milk").status_code == 200


def test_one_poisonous_name_is_400_with_its_place(server: Running) -> None:
    answer = server.predict("Milk", "poison apple")
    assert answer.status_code == 400
    assert answer.json() == {"error": "item 1: the model cannot score it"}
    assert server.predict("Milk").status_code == 200


def test_metrics_tell_requests_predictions_drift_and_the_model(
    server: Running, stub_bundle: Bundle
) -> None:
    server.predict(*NAMES)
    server.get("/nowhere")
    text = server.get("/metrics").text
    for pattern in (
        r'grocer_requests_total\{code="200",route="predict"\} [1-9]',
        r'grocer_requests_total\{code="404",route="unknown"\} [1-9]',
        r"grocer_items_total [1-9]",
        r"grocer_queue_items 0\.0",
        r"grocer_batch_items_count [1-9]",
        r"grocer_forward_seconds_count [1-9]",
        r"grocer_queue_wait_seconds_count [1-9]",
        r"grocer_tokens_total [1-9]",
        r'grocer_predictions_total\{department="[a-z ]+"\} [1-9]',
        r"grocer_low_confidence_total [0-9]",
        rf'grocer_model_info\{{base="[0-9a-f]+",digest="{stub_bundle.digest}"',
        r'grocer_reference_share\{department="produce"\} 0\.33',
        r'grocer_latest_share\{department="produce"\} [0-9]',
        r"grocer_drift 0\.\d+",
        r"grocer_latest_confidence 0\.\d+",
    ):
        assert re.search(pattern, text), pattern


def test_logs_are_json_with_the_requests_id_and_without_names(server: Running) -> None:
    body = {"instances": ["Very Secret Sauce", "Very Secret\x00 Sauce"]}
    server.post(PREDICT, json=body, headers={"x-request-id": "find-me"})
    server.post(PREDICT, json={"instances": ["Very Secret Sauce"]})
    lines = server.log.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    (record,) = [r for r in records if r.get("request_id") == "find-me"]
    assert (record["route"], record["code"]) == ("predict", 400)
    assert "Secret" not in "".join(lines)
    assert "Traceback" not in "".join(lines)


def packed(*names: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(name)) + name for name in names)


def test_bad_binary_bodies_are_400(server: Running) -> None:
    tensor = {"name": "product_name", "datatype": "BYTES", "shape": [1]}
    for data, size in ((b"\x05\0\0\0ab", 6), (packed(b"\xff"), 5), (packed(b"Milk"), 99), (b"", 0)):
        head = orjson.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]})
        headers = {"content-type": "application/octet-stream"}
        headers["inference-header-content-length"] = str(len(head))
        answer = server.post(INFER, content=head + data, headers=headers)
        assert answer.status_code == 400, answer.text
