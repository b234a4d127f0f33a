"""Requests are validated strictly; errors contain the path and the constraint, never the input."""

import json
import struct
from unittest.mock import Mock

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kserve import InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from grocer.config.deployment import ServingConfig
from grocer.model.prompts import template
from serving.predictor.errors import RequestError
from serving.predictor.protocol import requests
from serving.predictor.protocol.models import OUTPUTS, Models
from serving.predictor.protocol.requests import PredictionRequest, parse_grpc, parse_v1, parse_v2

CONFIG = ServingConfig(max_items=20)
MODELS = Models(CONFIG, ("bakery", "pets", "produce"))
TENSOR = {"name": "product_name", "datatype": "BYTES", "shape": [1]}


def predict(body: bytes) -> PredictionRequest:
    return parse_v1(body, MODELS.predict_request, MODELS)


def v1(**body: object) -> PredictionRequest:
    return predict(orjson.dumps(body))


def v2(data: object = ("Milk",), shape: object = (1,), **body: object) -> PredictionRequest:
    tensor = TENSOR | {"shape": shape, "data": data}
    return parse_v2(json.dumps({"inputs": [tensor], **body}).encode(), None, MODELS)


def encode(*names: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(name)) + name for name in names)


def binary(data: bytes, shape: int, size: int | None = None) -> PredictionRequest:
    parameters = {"binary_data_size": len(data) if size is None else size}
    head = orjson.dumps({"inputs": [TENSOR | {"shape": [shape], "parameters": parameters}]})
    return parse_v2(head + data, str(len(head)), MODELS)


def test_names_and_objects_are_equivalent() -> None:
    expected = PredictionRequest(["Milk", "Bread"], 3, 0.0)
    assert v1(instances=["Milk", {"product_name": "Bread"}]) == expected


def test_parameters_are_equal_in_both_protocols() -> None:
    parameters = {"top_k": 2.0, "min_probability": 0.5}
    for request in (v1(instances=["Milk"], parameters=parameters), v2(parameters=parameters)):
        assert (request.top_k, request.min_probability) == (2, 0.5)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "invalid JSON"),
        (b"{", "at line 1 column 1"),
        (b"[]", "request body: .*object"),
        (b"{}", "instances: field required"),
        (b'{"instances": "milk"}', "instances: .*array"),
        (b'{"instances": null}', "instances: .*array"),
        (b'{"instances": []}', r"instances: .*at least 1 item\W*$"),
        (orjson.dumps({"instances": ["a"] * 21}), r"instances: .*at most 20 items\W*$"),
        (b'{"instances": ["a", 1]}', r"instances\[1\]: .*string"),
        (b'{"instances": ["a", true]}', r"instances\[1\]: .*string"),
        (b'{"instances": ["a", ["b"]]}', r"instances\[1\]: .*string"),
        (b'{"instances": [{"name": "a"}]}', r"instances\[0\]\.product_name: field required"),
        (b'{"instances": [{"product_name": null}]}', r"instances\[0\]\.product_name: .*string"),
        (b'{"instances": [{"product_name": "a", "b": 1}]}', r"instances\[0\]: unknown field"),
        (b'{"instances": ["a", ""]}', r"instances\[1\]: .*at least 1 character"),
        (b'{"instances": ["a", " "]}', r"instances\[1\]: .*blank"),
        (b'{"instances": [" \\u00a0"]}', "blank"),
        (b'{"instances": ["\\u200b\\u200f"]}', "blank"),
        (b'{"instances": ["a\\u0000b"]}', "control characters"),
        (b'{"instances": ["a\\nb"]}', "control characters"),
        (b'{"instances": ["a\\u0085b"]}', "control characters"),
        (b'{"instances": ["\\u2028"]}', "control characters"),
        (b'{"instances": ["a", "\\ud800"]}', "invalid JSON"),
        (b'{"instances": ["a", "\\udc00x"]}', "invalid JSON"),
        (b'{"instances": ["' + b"a" * 1001 + b'"]}', r"instances\[0\]: .*at most 1000 characters"),
        (b'{"instances": ["a"], "more": 1}', "request body: unknown field"),
        (b'{"instances": ["a"], "inst\\u0061nces": ["b"]}', "request body: duplicate key"),
        (b'{"instances": [{"product_name": "a", "product_name": "b"}]}', "duplicate key"),
        (b'{"instances": ["a"], "parameters": {"top_k": 1, "top_k": 2}}', "duplicate key"),
        (b'{"instances": ["a"], "parameters": []}', "parameters: .*object"),
        (b'{"instances": ["a"], "parameters": {"k": 1}}', "parameters: unknown field"),
        (b'{"instances": ["a"], "parameters": {"top_k": 0}}', r"parameters\.top_k: .* 1"),
        (b'{"instances": ["a"], "parameters": {"top_k": 4}}', r"parameters\.top_k: .* 3"),
        (b'{"instances": ["a"], "parameters": {"top_k": true}}', "top_k"),
        (b'{"instances": ["a"], "parameters": {"top_k": "1"}}', "top_k"),
        (b'{"instances": ["a"], "parameters": {"top_k": 1.5}}', "top_k"),
        (b'{"instances": ["a"], "parameters": {"min_probability": 1.1}}', "min_probability: .* 1"),
        (b'{"instances": ["a"], "parameters": {"min_probability": "1"}}', "min_probability"),
        (b'{"instances": ["a"], "parameters": {"min_probability": NaN}}', "min_probability"),
        (b"[" * 5000 + b"]" * 5000, "invalid JSON"),
        (b'{"instances": ["\xff"]}', "invalid JSON"),
        (b'{"instances": ["\\ud800', "invalid JSON"),
    ],
)
def test_invalid_v1_request_returns_400_with_path_and_constraint(body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        predict(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("instances", "message"),
    [(["a"] * 17, "at most 16 items"), (["a", "b " * 41], r"instances\[1\]: at most 40 words")],
)
def test_explain_has_lower_limits(instances: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_v1(orjson.dumps({"instances": instances}), MODELS.explain_request, MODELS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": ["Milk"], "shape": [2]}, r"inputs\[0\]\.shape: \[2\] .* 1 element"),
        ({"shape": [1, 1]}, r"inputs\[0\]\.shape: .*at most 1 item"),
        ({"shape": [True]}, r"inputs\[0\]\.shape\[0\]: .*integer"),
        ({"shape": [-1]}, r"inputs\[0\]\.shape\[0\]: .* 1"),
        ({"shape": [2**60]}, r"inputs\[0\]\.shape\[0\]: .* 20"),
        ({"data": [["Milk"]]}, r"inputs\[0\]\.data\[0\]: .*string"),
        ({"data": "Milk"}, r"inputs\[0\]\.data: .*array"),
        ({"data": [1]}, r"inputs\[0\]\.data\[0\]: .*string"),
        ({"data": [" "]}, r"inputs\[0\]\.data\[0\]: .*blank"),
        ({"id": 5}, "id: .*string"),
        ({"id": "\ud800"}, "invalid JSON"),
        ({"id": "x" * 257}, "id: .*at most 256"),
        ({"outputs": []}, "outputs: .*at least 1"),
        ({"outputs": [{"name": "nope"}]}, r"outputs\[0\]\.name: .*'ranked_departments'"),
        ({"outputs": [{"name": "department"}] * 2}, r"outputs\[1\]: .*twice"),
        (
            {"outputs": [{"name": "department", "parameters": {"binary_data": 1}}]},
            r"outputs\[0\]\.parameters\.binary_data: .*boolean",
        ),
        ({"parameters": {"binary_data_output": "yes"}}, "binary_data_output: .*boolean"),
        ({"more": 1}, "request body: unknown field"),
        ({"model_name": ["grocer"]}, "model_name: .*string"),
        ({"parameters": {"headers": {}}}, "'parameters: .*strings, numbers"),
    ],
)
def test_invalid_v2_request_returns_400_with_path_and_constraint(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        v2(**change)


def test_parameters_of_other_servers_are_ignored() -> None:
    others = {"content_type": "str", "priority": 1, "weight": 0.5, "raw": True}
    tensor = TENSOR | {"data": ["Milk"], "parameters": others}
    outputs = [{"name": "department", "parameters": others}]
    body = {"inputs": [tensor], "outputs": outputs, "parameters": others | {"top_k": 2}}
    parsed = parse_v2(orjson.dumps(body), None, MODELS)
    assert (parsed.names, parsed.top_k, parsed.outputs) == (["Milk"], 2, {"department": False})


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([], "inputs: .*at least 1 item"),
        ([TENSOR | {"data": ["a"]}] * 2, "inputs: .*at most 1 item"),
        ([5], r"inputs\[0\]: .*object"),
        ([TENSOR | {"name": "x"}], r"inputs\[0\]\.name: .*product_name"),
        ([TENSOR | {"datatype": "FP32"}], r"inputs\[0\]\.datatype: .*BYTES"),
        ([{"name": "product_name", "datatype": "BYTES"}], r"inputs\[0\]\.shape: field required"),
        ([TENSOR], r"inputs\[0\]: .*data or binary_data_size"),
    ],
)
def test_tensor_must_match_the_model_metadata(tensors: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_v2(json.dumps({"inputs": tensors}).encode(), None, MODELS)


def test_binary_data_follows_the_json() -> None:
    assert binary(encode(b"Milk", "Crème".encode()), 2).names == ["Milk", "Crème"]


@pytest.mark.parametrize(
    ("data", "shape", "size", "message"),
    [
        (encode(b"Milk"), 2, None, r"shape: \[2\] .* 1 element"),
        (encode(b"Milk"), 1, 3, "binary_data_size: 8 bytes"),
        (encode(b"Milk"), 1, 2**40, "binary_data_size"),
        (b"\x01", 1, None, "truncated"),
        (struct.pack("<I", 2**32 - 1) + b"x", 1, None, "truncated"),
        (encode(b"Milk", b"\xff\xfe"), 2, None, r"inputs\[0\]\.data\[1\]: .*unicode"),
        (encode(b""), 1, None, r"inputs\[0\]\.data\[0\]"),
    ],
)
def test_invalid_binary_data_returns_400(
    data: bytes, shape: int, size: int | None, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        binary(data, shape, size)


@pytest.mark.parametrize("header", [None, "", "-1", "1e3", "x", "９", "9" * 30, "100000"])
def test_missing_or_invalid_length_header_returns_400(header: str | None) -> None:
    body = orjson.dumps({"inputs": [TENSOR | {"parameters": {"binary_data_size": 8}}]})
    with pytest.raises(RequestError, match="inference-header-content-length"):
        parse_v2(body, header, MODELS)


def test_binary_data_without_a_binary_input_returns_400() -> None:
    head = orjson.dumps({"inputs": [TENSOR | {"data": ["Milk"]}]})
    with pytest.raises(RequestError, match=r"inputs\[0\].*binary_data_size"):
        parse_v2(head + b"xyz", str(len(head)), MODELS)


def test_elements_beyond_the_limit_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Mock(wraps=struct, error=struct.error)
    monkeypatch.setattr(requests, "struct", counting)
    with pytest.raises(RequestError, match="at most 20 items"):
        binary(encode(*[b"x"] * 5000), 20)
    assert counting.unpack_from.call_count == CONFIG.max_items + 1


def test_large_body_of_fields_or_lists_is_not_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_validate", None)
    numbers = range(20_000)
    fields = [b",".join(b'"%d"%s1' % (i, colon) for i in numbers) for colon in (b":", b" \n:")]
    lists = [b'"id":[%s1]' % (opening * 40_000) for opening in (b"[],", b"[ [],\n{}],")]
    for body in (b"{%s}" % content for content in fields + lists):
        for parse in (predict, lambda data: parse_v2(data, None, MODELS)):
            with pytest.raises(RequestError, match="too many fields") as caught:
                parse(body)
            assert caught.value.status == 400


def test_large_request_of_objects_is_valid() -> None:
    models = Models(ServingConfig(), ("bakery", "pets"))
    body = orjson.dumps({"instances": [{"product_name": '12": ' * 20}] * 1024})
    assert len(body) > requests._SMALL_BODY_BYTES
    with pytest.raises(RequestError, match="too many fields"):
        parse_v1(body, models.predict_request, models)
    for name in ('12": ' + "x" * 90, "[organic] " * 9, "2 l, [organic] " + "x" * 90):
        body = orjson.dumps({"instances": [{"product_name": name}] * 1024})
        assert len(parse_v1(body, models.predict_request, models).names) == 1024


def test_names_are_not_cleaned_while_a_request_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing runs on the event loop; cleaning the largest request takes half a second."""
    monkeypatch.setattr(template, "clean", None)
    monkeypatch.setattr(template, "limit_marks", None)
    name = "\u0345\u0301" * 50
    assert v1(instances=[name] * 20).names == v2([name] * 20, (20,)).names == [name] * 20


def test_outputs_are_json_unless_requested_as_binary() -> None:
    assert v2().outputs == dict.fromkeys(OUTPUTS, False)
    request = v2(
        parameters={"binary_data_output": True},
        outputs=[
            {"name": "probability"},
            {"name": "department", "parameters": {"binary_data": False}},
        ],
    )
    assert list(request.outputs.items()) == [("probability", True), ("department", False)]


def grpc_message(*names: bytes, raw: bool, **tensor: object) -> InferRequest:
    contents = None if raw else pb.InferTensorContents(bytes_contents=names)
    message = pb.ModelInferRequest(
        id="7",
        inputs=[
            pb.ModelInferRequest.InferInputTensor(
                **(TENSOR | {"shape": [len(names)], "contents": contents} | tensor)
            )
        ],
        parameters={"top_k": pb.InferParameter(int64_param=1)},
        raw_input_contents=[encode(*names)] if raw else None,
    )
    return InferRequest.from_grpc(message)


@pytest.mark.parametrize("raw", [False, True])
def test_grpc_contents_and_raw_bytes_are_equivalent(raw: bool) -> None:
    request = parse_grpc(grpc_message(b"Milk", "Crème".encode(), raw=raw), MODELS)
    assert (request.names, request.top_k, request.id) == (["Milk", "Crème"], 1, "7")


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("tensor", [{"name": "x"}, {"shape": [2]}, {"datatype": "FP32"}])
def test_invalid_grpc_tensor_returns_400(raw: bool, tensor: dict[str, object]) -> None:
    with pytest.raises(RequestError) as caught:
        parse_grpc(grpc_message(b"Milk", raw=raw, **tensor), MODELS)
    assert caught.value.status == 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
bodies = st.one_of(
    st.binary(),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.lists(json_values, max_size=5).map(lambda v: json.dumps({"instances": v}).encode()),
    st.lists(json_values, max_size=5).map(
        lambda v: json.dumps({"inputs": [TENSOR | {"shape": [len(v)], "data": v}]}).encode()
    ),
)


@given(bodies, st.none() | st.integers(-2, 300).map(str))
def test_any_body_is_a_request_within_limits_or_an_error(body: bytes, length: str | None) -> None:
    for parse in (predict, lambda text: parse_v2(text, length, MODELS)):
        try:
            request = parse(body)
        except RequestError as caught:
            error = caught
            assert (error.status, len(error.message) < 200) == (400, True)
        else:
            assert 1 <= len(request.names) <= CONFIG.max_items
            assert all(0 < len(name) <= CONFIG.max_name_characters for name in request.names)
            "".join(request.names).encode()


@given(st.text(alphabet="qxzj", min_size=8, max_size=30))
def test_error_never_contains_the_input(text: str) -> None:
    for body in (
        {"instances": [text, 5]},
        {text: 1},
        {"instances": [{text: 1}]},
        {"instances": ["a"], "parameters": {text: {text: text}}},
        {"inputs": [{text: text}]},
        {"inputs": [TENSOR | {"name": text, "data": [text]}], text: text},
    ):
        for parse in (predict, lambda data: parse_v2(data, None, MODELS)):
            with pytest.raises(RequestError) as caught:
                parse(json.dumps(body).encode())
            assert text not in caught.value.message
