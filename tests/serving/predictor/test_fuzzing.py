"""Invalid and fuzzed requests: no 5xx, no input in errors, no closed connection."""

import json
import random
import struct
from http.client import HTTPConnection

import httpx
import openapi_spec_validator
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

from tests.fixtures.predictor_process import EXPLAIN, INFER, PREDICT, Running

REQUEST = {"instances": ["Organic Bananas", "Milk"]}
TENSOR = {"name": "product_name", "datatype": "BYTES", "shape": [1], "data": ["Milk"]}
MARKER = "zqxjkv"

# Beside those of test_requests.
BODIES: list[bytes] = [
    b"\x00",
    b"null",
    b"true",
    b"0",
    b'""',
    b"{" * 1000,
    b"[" * 100_000,
    b'{"a":' * 500 + b"1" + b"}" * 500,
    b'{"instances":[NaN]}',
    b'{"instances":[1e999]}',
    b'{"instances":[-0]}',
    b'{"instances":[' + b"9" * 5000 + b"]}",
    b'{"instances":{}}',
    b'{"instances":[[[[["milk"]]]]]}',
    b'{"instances":[{"product_name":{"product_name":"milk"}}]}',
    b'{"instances":["\xed\xa0\x80"]}',
    b"\xef\xbb\xbf" + orjson.dumps(REQUEST),
    orjson.dumps(REQUEST).decode().encode("utf-16"),
    orjson.dumps(REQUEST)[:-1],
    orjson.dumps(REQUEST) + b"x",
    orjson.dumps({"instances": ["milk"] * 1025}),
    orjson.dumps({"instances": [MARKER], MARKER: 1}),
    orjson.dumps({"inputs": [TENSOR | {"name": MARKER}]}),
    orjson.dumps({"inputs": [TENSOR | {"shape": [1.5]}]}),
    orjson.dumps({"inputs": [TENSOR | {"shape": ["1"]}]}),
    orjson.dumps({"inputs": [TENSOR | {"data": [None]}]}),
    orjson.dumps({"inputs": [TENSOR | {"parameters": {"binary_data_size": -1}}]}),
    orjson.dumps({"inputs": [TENSOR], "outputs": [{"name": MARKER}]}),
    orjson.dumps({"inputs": [TENSOR], "outputs": [None]}),
    orjson.dumps({"inputs": TENSOR}),
    orjson.dumps({"inputs": [None]}),
    orjson.dumps({"id": {"a": 1}, "inputs": [TENSOR]}),
    b"{" + b",".join(b'"%d":1' % i for i in range(9000)) + b"}",
    orjson.dumps({"parameters": {"top_k": 10**9}, "inputs": [TENSOR]}),
]
LENGTHS = (None, "0", "1", "-1", "99999999999", "nan", "0x10", "1,1", "1e1", "")


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN, INFER])
def test_invalid_bodies_are_400_without_input_on_an_open_connection(
    server: Running, path: str
) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for body in BODIES:
            response = client.post(path, content=body)
            assert response.status_code == 400, (body[:60], response.text)
            assert list(response.json()) == ["error"]
            assert MARKER not in response.text
            assert "connection" not in response.headers


def mutated_request(rng: random.Random) -> tuple[str, bytes, dict[str, str]]:
    """Return path, body and headers of a valid request with mutated bytes, values or headers."""
    path = rng.choice((PREDICT, EXPLAIN, INFER))
    tree: object = {"inputs": [TENSOR | {"data": [MARKER]}]}
    if path != INFER:
        tree = {"instances": ["Milk", MARKER]}
    if rng.random() < 0.6:
        tree = _mutated(json.loads(json.dumps(tree)), rng)
    body = bytearray(json.dumps(tree).encode())
    for _ in range(rng.choice((0, 0, 1, 3, 20))):
        at = rng.randrange(len(body))
        body[at : at + 1] = rng.choice((b"", rng.randbytes(1), rng.randbytes(2)))
        body = body or bytearray(b" ")
    if rng.random() < 0.1:
        body += struct.pack("<I", rng.randrange(2**32)) + rng.randbytes(8)
    headers = {"content-type": rng.choice(("application/json", "application/octet-stream"))}
    length = rng.choice((*LENGTHS, str(len(body))))
    if length is not None and rng.random() < 0.5:
        headers["inference-header-content-length"] = length
    return path, bytes(body), headers


def _mutated(value: object, rng: random.Random) -> object:
    values = (
        None,
        True,
        0,
        -1,
        1e308,
        "",
        " ",
        "x" * 2000,
        [],
        {},
        "\ud800",
        [[]],
        {"a": [1]},
        2**70,
    )
    if rng.random() < 0.3:
        return rng.choice(values)
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        return value | {key: _mutated(value[key], rng)}
    if isinstance(value, list) and value:
        return [*value[:-1], _mutated(value[-1], rng)] * rng.choice((1, 1, 2, 600))
    return value


def test_server_survives_ten_thousand_fuzzed_requests(server: Running) -> None:
    before = server.post(PREDICT, json=REQUEST).json()
    rng, statuses = random.Random(11), set()
    connection = HTTPConnection("127.0.0.1", httpx.URL(server.url).port, timeout=20)
    for _ in range(10_000):
        path, body, headers = mutated_request(rng)
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        text = response.read()
        statuses.add(response.status)
        assert response.status in (200, 400, 413, 415), (path, body[:80], text)
        assert not response.will_close, (path, body[:80], text)
        assert response.status == 200 or MARKER.encode() not in text, (path, body[:80], text)
    connection.close()
    assert {200, 400, 415} <= statuses
    assert server.post(PREDICT, json=REQUEST).json() == before


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("server", GenerationMode.POSITIVE),
        ("server", GenerationMode.NEGATIVE),
        ("server_with_aisles", GenerationMode.POSITIVE),
    ],
)
def test_responses_conform_to_the_openapi_document(
    name: str, mode: GenerationMode, request: pytest.FixtureRequest
) -> None:
    server: Running = request.getfixturevalue(name)
    document = server.get("/openapi.json").json()
    openapi_spec_validator.validate(document)
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 12
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue

        @given(operation.as_strategy(generation_mode=mode))
        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        def conforms(case: schemathesis.Case) -> None:
            match_shape(case)
            # The document is narrower than the predictor (its names are ASCII): requests that
            # violate it may succeed. BODIES contains those that must not.
            case.call_and_validate(excluded_checks=[negative_data_rejection])

        conforms()


def match_shape(case: schemathesis.Case) -> None:
    """Set the shape of a V2 request to the number of names, which JSON Schema cannot express."""
    if isinstance(case.body, dict) and isinstance(case.body.get("inputs"), list):
        for tensor in case.body["inputs"]:
            if isinstance(tensor, dict) and isinstance(tensor.get("data"), list):
                tensor["shape"] = [len(tensor["data"])]
