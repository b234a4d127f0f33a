"""The HTTP API of a running predictor: predictions, errors, routes, headers, metrics, logs."""

import json
import re
from contextlib import ExitStack

import numpy as np
import pytest
from kserve import InferInput, InferRequest
from kserve.protocol.infer_type import InferResponse, RequestedOutput

from grocer.release.bundle import LoadedBundle
from tests.fixtures.artifacts import LABELS
from tests.fixtures.predictor import StubScorer
from tests.fixtures.predictor_process import (
    EXPLAIN,
    INFER,
    POST_HEAD,
    PREDICT,
    READY,
    Running,
    Start,
)

NAMES = ["Organic Bananas", "Crème fraîche", "牛乳"]


def test_v1_returns_the_most_likely_departments(server: Running) -> None:
    predictions = server.predict(*NAMES, top_k=3).json()["predictions"]
    expected = StubScorer(LABELS).predict(NAMES).probabilities
    for prediction, row in zip(predictions, expected, strict=True):
        assert prediction["department"] == LABELS[row.argmax()]
        assert prediction["probability"] == pytest.approx(row.max(), abs=1e-6)
        assert [a["probability"] for a in prediction["alternatives"]] == pytest.approx(
            sorted(row, reverse=True), abs=1e-6
        )
        assert prediction["alternatives"][0]["department"] == prediction["department"]


def test_v2_is_equivalent_to_v1(server: Running) -> None:
    first = server.predict(*NAMES, top_k=2).json()["predictions"]
    response = server.infer(*NAMES, parameters={"top_k": 2}, id="seven").json()
    outputs = {output["name"]: output for output in response["outputs"]}
    assert response["id"] == "seven"
    assert outputs["department"]["data"] == [p["department"] for p in first]
    assert outputs["probability"]["data"] == pytest.approx([p["probability"] for p in first], 1e-5)
    assert outputs["ranked_departments"]["shape"] == [3, 2]
    ranked = [a["department"] for p in first for a in p["alternatives"]]
    assert outputs["ranked_departments"]["data"] == ranked
    assert outputs["probability"]["datatype"] == "FP32"


def test_department_is_null_below_min_probability(server: Running) -> None:
    predictions = server.predict(*NAMES, min_probability=1.0).json()["predictions"]
    assert [p["department"] for p in predictions] == [None] * 3
    assert all(p["alternatives"] for p in predictions)
    outputs = server.infer(*NAMES, parameters={"min_probability": 1.0}).json()["outputs"]
    assert outputs[0]["data"] == [""] * 3


def test_binary_extension_is_compatible_with_kserve_client_classes(server: Running) -> None:
    tensor = InferInput("product_name", [3], "BYTES")
    tensor.set_data_from_numpy(np.array(NAMES, dtype=object), binary_data=True)
    requested = [RequestedOutput(n, {"binary_data": True}) for n in ("department", "probability")]
    body, length = InferRequest("grocer", [tensor], request_outputs=requested).to_rest()
    headers = {"content-type": "application/octet-stream"}
    headers["inference-header-content-length"] = str(length)
    response = server.post(INFER, content=body, headers=headers)
    assert response.status_code == 200, response.text
    json_length = int(response.headers["inference-header-content-length"])
    response = InferResponse.from_bytes(response.content, json_length)
    expected = StubScorer(LABELS).predict(NAMES)
    probabilities = response.get_output_by_name("probability").as_numpy()
    np.testing.assert_allclose(probabilities, expected.confidence, rtol=1e-6)
    departments = response.get_output_by_name("department").as_numpy().tolist()
    assert departments == expected.predicted_labels


def test_explain_returns_the_effect_of_each_word(server: Running) -> None:
    body, headers = {"instances": ["Organic Bananas", "Milk"]}, {"authorization": "Bearer secret"}
    response = server.post(EXPLAIN, json=body, headers=headers)
    first, second = response.json()["explanations"]
    rows = StubScorer(LABELS).predict(["Organic Bananas", "Bananas", "Organic"]).probabilities
    best = rows[0].argmax()
    assert first["department"] == LABELS[best]
    assert [w["word"] for w in first["words"]] == ["Organic", "Bananas"]
    effects = (rows[0, best] - rows[1:, best]).tolist()
    assert [w["effect"] for w in first["words"]] == pytest.approx(effects, abs=2e-6)
    assert len(second["words"]) == 1
    assert "authorization" not in response.headers
    # Its limits are lower than those of predictions.
    assert server.post(EXPLAIN, json={"instances": ["Milk"] * 17}).status_code == 400


@pytest.mark.parametrize("path", ["/", "/v2/health/ready", "/metrics", "/openapi.json"])
def test_head_is_answered_as_get_without_body(server: Running, path: str) -> None:
    response = server.client.head(path)
    assert (response.status_code, response.content) == (200, b"")
    assert server.get(path).status_code == 200


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
        ("HEAD", PREDICT, 405),
    ],
)
def test_other_routes_and_methods_are_closed(
    server: Running, method: str, path: str, code: int
) -> None:
    response = server.client.request(method, path)
    assert response.status_code == code
    assert method == "HEAD" or list(response.json()) == ["error"]
    assert "connection" not in response.headers
    allowed = {PREDICT: "POST"}.get(path, "GET, HEAD") if code == 405 else None
    assert response.headers.get("allow") == allowed
    assert server.get(READY).json() == {"name": "grocer", "ready": True}


def test_every_response_has_model_digest_and_request_id(
    server: Running, stub_bundle: LoadedBundle
) -> None:
    for path in ("/", "/metrics", "/nowhere", READY, "/openapi.json", PREDICT):
        response = server.get(path, headers={"x-request-id": "abc-1"})
        assert response.headers["x-model-digest"] == stub_bundle.digest
        assert response.headers["x-request-id"] == "abc-1"
    invalid = server.get("/", headers={"x-request-id": "a b\t<script>"})
    assert re.fullmatch("[0-9a-f]{32}", invalid.headers["x-request-id"])


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
def test_v1_accepts_only_json_in_utf8(server: Running, kind: str | None, code: int) -> None:
    headers = {} if kind is None else {"content-type": kind}
    body = b'{"instances": ["Milk"]}'
    assert server.post(PREDICT, content=body, headers=headers).status_code == code


def test_compressed_bodies_are_415_and_cloudevents_are_not_interpreted(server: Running) -> None:
    body = {"instances": ["Milk"]}
    compressed = server.post(PREDICT, json=body, headers={"content-encoding": "gzip"})
    assert compressed.status_code == 415
    event = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "s"}
    response = server.post(PREDICT, json=body, headers=event)
    assert list(response.json()) == ["predictions"]


def test_large_body_is_413_and_the_connection_stays_open(server: Running) -> None:
    for body in (b"x" * 200_001, (b"x" * 50_000 for _ in range(5))):
        response = server.post(PREDICT, content=body)
        assert (response.status_code, response.headers.get("connection")) == (413, None)


def test_requests_without_a_body_do_not_use_queue_capacity(
    start_server: Start, stub_bundle: LoadedBundle
) -> None:
    server = start_server(stub_bundle, "queue_seconds=0.1", "token_budget=8").wait_until_ready()
    for _ in range(3):
        assert server.predict("slow").status_code == 200  # raises the expected wait
    with ExitStack() as connections:
        for _ in range(50):
            client = connections.enter_context(server.connect())
            client.sendall(f"{POST_HEAD}content-length: 50\r\n\r\n".encode())
        assert server.predict("Milk").status_code == 200


def test_item_that_cannot_be_scored_returns_400_with_its_index(server: Running) -> None:
    response = server.predict("Milk", "poison apple")
    assert response.status_code == 400
    assert "item 1" in response.json()["error"]
    assert server.predict("Milk").status_code == 200


def test_unexpected_error_is_500_without_its_text(
    start_server: Start, stub_bundle: LoadedBundle
) -> None:
    server = start_server(stub_bundle).wait_until_ready()
    for response in (server.predict("internal"), server.infer("internal")):
        assert response.status_code == 500
        assert response.json() == {"error": "internal error; see the server log"}
    assert "secret of the server" in server.log.read_text()
    assert server.predict("Milk").status_code == 200


def test_metrics_cover_requests_predictions_drift_and_the_bundle(
    server: Running, stub_bundle: LoadedBundle
) -> None:
    server.predict(*NAMES)
    server.get("/nowhere")
    text = server.get("/metrics").text
    for pattern in (
        r'grocer_requests_total\{code="200",route="predict"\} [1-9]',
        r'grocer_requests_total\{code="404",route="unknown"\} [1-9]',
        r"grocer_items_total [1-9]",
        r'grocer_scored_total\{model="language_model"\} [1-9]',
        r'grocer_scored_total\{model="linear"\} 0',
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
        r"grocer_drift NaN",  # too few predictions
        r"grocer_latest_confidence 0\.\d+",
    ):
        assert re.search(pattern, text), pattern


def test_logs_are_json_with_request_id_and_without_product_names(server: Running) -> None:
    body = {"instances": ["Very Secret Sauce", "Very Secret\x00 Sauce"]}
    server.post(PREDICT, json=body, headers={"x-request-id": "find-me"})
    server.post(PREDICT, json={"instances": ["Very Secret Sauce"]})
    lines = server.log.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    (record,) = [r for r in records if r.get("request_id") == "find-me"]
    assert (record["route"], record["code"]) == ("predict", 400)
    assert "Secret" not in "".join(lines)
    assert "Traceback" not in "".join(lines)
