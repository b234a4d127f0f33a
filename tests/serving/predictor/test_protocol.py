"""Requests are read strictly: an `Ask`, or a refusal that names the place and not the content."""

from __future__ import annotations

import json
import struct

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.predictor.errors import Refusal
from serving.predictor.protocol import OUTPUTS, Ask, Limits, from_tensors, parse_v1, parse_v2

LIMITS = Limits(items=4, name_characters=20, labels=3, top_k=5)


def v1(**body: object) -> Ask:
    return parse_v1(orjson.dumps(body), LIMITS)


def v2(data: object = ("Milk",), shape: object = (1,), **more: object) -> Ask:
    tensor = {"name": "product_name", "datatype": "BYTES", "shape": shape, "data": data}
    return parse_v2(orjson.dumps({"inputs": [tensor], **more}), None, LIMITS)


def packed(*names: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(name)) + name for name in names)


def binary(data: bytes, shape: int, size: int | None = None) -> Ask:
    parameters = {"binary_data_size": len(data) if size is None else size}
    tensor = {"name": "product_name", "datatype": "BYTES", "shape": [shape]}
    head = orjson.dumps({"inputs": [{**tensor, "parameters": parameters}]})
    return parse_v2(head + data, str(len(head)), LIMITS)


def test_names_and_objects_are_read_alike() -> None:
    assert v1(instances=["Milk", {"product_name": "Bread"}]) == Ask(["Milk", "Bread"], 3, 0.0)


def test_parameters_are_the_same_in_both_protocols() -> None:
    wanted = {"top_k": 2, "min_probability": 0.5}
    first, second = v1(instances=["Milk"], parameters=wanted), v2(parameters=wanted)
    assert (
        (first.top_k, first.min_probability) == (second.top_k, second.min_probability) == (2, 0.5)
    )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"{", "line 1, column"),
        (b"[]", "expected an object"),
        (b"{}", "instances: expected a list"),
        (b'{"instances": "milk"}', "instances: expected a list"),
        (b'{"instances": null}', "instances: expected a list"),
        (b'{"instances": []}', "from 1 to 4 items, not 0"),
        (b'{"instances": ["a","a","a","a","a"]}', "from 1 to 4 items, not 5"),
        (b'{"instances": ["a", 1]}', r"instances\[1\]: expected a string"),
        (b'{"instances": ["a", true]}', r"instances\[1\]: expected a string"),
        (b'{"instances": ["a", ["b"]]}', r"instances\[1\]: expected a string"),
        (b'{"instances": [{"name": "a"}]}', r"instances\[0\]: expected an object with product"),
        (b'{"instances": [{"product_name": null}]}', r"instances\[0\]: expected a string"),
        (b'{"instances": ["a", ""]}', r"instances\[1\]: the name is empty or blank"),
        (b'{"instances": [" \\u00a0"]}', "empty or blank"),
        (b'{"instances": ["\\u200b\\u200f"]}', "empty or blank"),
        (b'{"instances": ["a\\u0000b"]}', "control characters"),
        (b'{"instances": ["a\\nb"]}', "control characters"),
        (b'{"instances": ["a\\u0085b"]}', "control characters"),
        (b'{"instances": ["a", "\\ud800"]}', r"instances\[1\]: a lone surrogate"),
        (b'{"instances": ["a", "\\udc00x"]}', r"instances\[1\]: a lone surrogate"),
        (b'{"instances": ["' + b"a" * 21 + b'"]}', "at most 20 characters, not 21"),
        (b'{"instances": ["a"], "more": 1}', "only instances, parameters may stand here"),
        (b'{"instances": ["a"], "parameters": []}', "parameters: expected an object"),
        (b'{"instances": ["a"], "parameters": {"k": 1}}', "parameters: only"),
        (b'{"instances": ["a"], "parameters": {"top_k": 0}}', "top_k: a whole number from 1 to 3"),
        (b'{"instances": ["a"], "parameters": {"top_k": 4}}', "top_k"),
        (b'{"instances": ["a"], "parameters": {"top_k": true}}', "top_k"),
        (b'{"instances": ["a"], "parameters": {"top_k": 1.5}}', "top_k"),
        (b'{"instances": ["a"], "parameters": {"min_probability": 1.1}}', "from 0 to 1"),
        (b'{"instances": ["a"], "parameters": {"min_probability": "1"}}', "from 0 to 1"),
        (b'{"instances": ["a"], "parameters": {"min_probability": NaN}}', "not JSON"),
        (b"[" * 5000 + b"]" * 5000, "not JSON"),
        (b'{"instances": ["\xff"]}', "not JSON"),
        (b'{"instances": ["\\ud800', "not JSON"),
    ],
)
def test_a_bad_v1_request_is_refused_where_it_is_bad(body: bytes, told: str) -> None:
    with pytest.raises(Refusal, match=told) as caught:
        parse_v1(body, LIMITS)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": ["Milk"], "shape": [2]}, "the shape says 2 items, the data has 1"),
        ({"shape": [1, 1]}, r"shape: expected \[n\]"),
        ({"shape": [True]}, r"shape: expected \[n\]"),
        ({"shape": [-1]}, "from 1 to 4 items"),
        ({"shape": [2**60]}, "from 1 to 4 items"),
        ({"data": [["Milk"]]}, r"product_name\[0\]: expected a string"),
        ({"data": "Milk"}, "expected a list of strings"),
        ({"data": [1]}, r"product_name\[0\]: expected a string"),
        ({"id": 5}, "id: expected a string"),
        ({"id": "x" * 257}, "id: expected a string of at most 256"),
        ({"outputs": []}, "outputs: expected a list"),
        ({"outputs": [{"name": "nope"}]}, r"outputs\[0\]\.name: one of"),
        ({"outputs": [{"name": "department"}] * 2}, "each once"),
        ({"outputs": [{"name": "department", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"parameters": {"binary_data_output": "yes"}}, "true or false"),
        ({"more": 1}, "only id, inputs, model_name"),
    ],
)
def test_a_bad_v2_request_is_refused_where_it_is_bad(change: dict[str, object], told: str) -> None:
    with pytest.raises(Refusal, match=told):
        v2(**change)


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        ([], "expected one tensor"),
        ([{}, {}], "expected one tensor"),
        ([5], r"inputs\[0\]: expected an object"),
        ([{"name": "x"}], "name: expected product_name"),
        ([{"name": "product_name", "datatype": "FP32"}], "datatype: expected BYTES"),
        ([{"name": "product_name", "datatype": "BYTES"}], "shape: expected"),
        ([{"name": "product_name", "datatype": "BYTES", "shape": [1]}], "expected a list"),
    ],
)
def test_a_tensor_must_be_the_one_that_is_expected(tensor: object, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        parse_v2(json.dumps({"inputs": tensor}).encode(), None, LIMITS)


def test_binary_data_is_read_behind_the_json() -> None:
    assert binary(packed(b"Milk", "Crème".encode()), 2).names == ["Milk", "Crème"]


@pytest.mark.parametrize(
    ("data", "shape", "size", "told"),
    [
        (packed(b"Milk"), 2, None, "the shape says 2 items, the data has 1"),
        (packed(b"Milk"), 1, 3, "binary_data_size: the body has 8 bytes"),
        (packed(b"Milk"), 1, 2**40, "binary_data_size"),
        (b"\x01", 1, None, r"product_name\[0\]: the binary data ends inside a length"),
        (struct.pack("<I", 2**32 - 1) + b"x", 1, None, "ends before the stated length"),
        (packed(b"Milk", b"\xff\xfe"), 2, None, r"product_name\[1\]: not UTF-8"),
        (packed(b""), 1, None, "empty or blank"),
    ],
)
def test_bad_binary_data_is_refused(data: bytes, shape: int, size: int | None, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        binary(data, shape, size)


def test_binary_data_whose_beginning_is_not_told_is_refused() -> None:
    tensor = {"name": "product_name", "datatype": "BYTES", "shape": [1]}
    body = orjson.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 0}}]})
    with pytest.raises(Refusal, match="needs the header Inference-Header-Content-Length"):
        parse_v2(body, None, LIMITS)


@pytest.mark.parametrize("header", ["", "-1", "1e3", "x", "９", "9" * 30, "100000"])
def test_a_bad_length_header_is_refused(header: str) -> None:
    with pytest.raises(Refusal, match="Inference-Header-Content-Length"):
        parse_v2(b"{}", header, LIMITS)


def test_bytes_that_no_input_claims_are_refused() -> None:
    tensor = {"name": "product_name", "datatype": "BYTES", "shape": [1], "data": ["Milk"]}
    head = orjson.dumps({"inputs": [tensor]})
    with pytest.raises(Refusal, match="3 bytes follow the JSON"):
        parse_v2(head + b"xyz", str(len(head)), LIMITS)


def test_outputs_are_json_unless_asked_for_in_binary() -> None:
    assert v2().outputs == tuple((name, False) for name in OUTPUTS)
    asked = v2(
        parameters={"binary_data_output": True},
        outputs=[
            {"name": "probability"},
            {"name": "department", "parameters": {"binary_data": False}},
        ],
    )
    assert asked.outputs == (("probability", True), ("department", False))


@pytest.mark.parametrize("data", [[b"Milk"], packed(b"Milk")])
def test_grpc_contents_and_raw_bytes_are_read_alike(data: list[bytes] | bytes) -> None:
    tensors = [("product_name", "BYTES", [1], data)]
    assert from_tensors(tensors, {"top_k": 1}, (), "7", LIMITS, binary=True).names == ["Milk"]


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
        lambda v: json.dumps(
            {
                "inputs": [
                    {"name": "product_name", "datatype": "BYTES", "shape": [len(v)], "data": v}
                ]
            }
        ).encode()
    ),
)


@given(bodies, st.none() | st.integers(-2, 300).map(str))
def test_whatever_is_sent_is_an_ask_within_the_limits_or_a_refusal(
    body: bytes, length: str | None
) -> None:
    for parse in (parse_v1, lambda text, limits: parse_v2(text, length, limits)):
        try:
            ask = parse(body, LIMITS)
        except Refusal as refusal:
            found = refusal
            assert (found.status, len(found.message) < 200) == (400, True)
        else:
            assert 1 <= len(ask.names) <= LIMITS.items
            assert all(0 < len(name) <= LIMITS.name_characters for name in ask.names)
            "".join(ask.names).encode()


@given(st.text(alphabet="qxzj", min_size=8, max_size=30))
def test_a_refusal_never_repeats_what_was_sent(text: str) -> None:
    for body in ({"instances": [text, 5]}, {text: 1}, {"instances": [{text: 1}]}, {"x": text}):
        with pytest.raises(Refusal) as caught:
            parse_v1(json.dumps(body).encode(), LIMITS)
        assert text not in caught.value.message
