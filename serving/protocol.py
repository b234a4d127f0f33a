"""Requests of both protocols, read strictly into one `Ask`.

Whatever is accepted here is scored; whatever is not is refused with 400 and a sentence that
names the place and the limit, never the content.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from grocer.prompts import clean
from serving.refusal import Refusal

INPUT = "product_name"
OUTPUTS = ("department", "probability", "ranked_departments", "ranked_probabilities")
AISLE_OUTPUTS = ("aisle", "aisle_probability")
"""V2 outputs more, where the bundle's labels have aisles."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Limits:
    """What a request may ask for."""

    items: int
    name_characters: int
    labels: int
    top_k: int
    """Alternatives where the request does not say."""
    outputs: tuple[str, ...] = OUTPUTS
    """V2 outputs that there are."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that may be answered."""

    names: Sequence[str]
    top_k: int
    min_probability: float
    id: str | None = None
    """The client's name for a V2 request, given back with the answer."""
    outputs: tuple[tuple[str, bool], ...] | None = None
    """V2: the outputs asked for and whether in binary; None is V1."""


def parse_v1(body: bytes, limits: Limits) -> Ask:
    """`{"instances": [name or {"product_name": name} …], "parameters": {…}}`.

    Raises:
        Refusal: 400.
    """
    tree = _object(_json(body), "the body", {"instances", "parameters"})
    instances = tree.get("instances")
    if not isinstance(instances, list):
        raise Refusal(400, "instances: expected a list of product names")
    _require_count(len(instances), limits, "instances")
    names = [_instance(item, i) for i, item in enumerate(instances)]
    _require_names(names, limits, "instances")
    top_k, min_probability = _parameters(tree.get("parameters"), limits)
    return Ask(names, top_k, min_probability)


def parse_v2(body: bytes, json_length: str | None, limits: Limits) -> Ask:
    """One BYTES tensor `product_name` of shape [n], in JSON or behind it in binary.

    Args:
        body: JSON, then the binary data if there is any.
        json_length: the header `Inference-Header-Content-Length`, if it was sent.

    Raises:
        Refusal: 400.
    """
    text, binary = _parts(body, json_length)
    # KServe's own client repeats the model's name, which the path has told already.
    keys = {"id", "inputs", "model_name", "model_version", "outputs", "parameters"}
    tree = _object(_json(text), "the body", keys)
    identity = tree.get("id")
    if identity is not None and (not isinstance(identity, str) or len(identity) > 256):
        raise Refusal(400, "id: expected a string of at most 256 characters")
    tensor = _tensor(tree.get("inputs"))
    count = _shape(tensor, limits)
    names = _tensor_names(tensor, binary, count, has_binary=json_length is not None)
    _require_names(names, limits, INPUT)
    parameters = tree.get("parameters")
    top_k, min_probability = _parameters(parameters, limits, more={"binary_data_output"})
    outputs = _outputs(tree.get("outputs"), parameters or {}, limits)
    return Ask(names, top_k, min_probability, identity, outputs)


def from_tensors(
    tensors: Sequence[tuple[str, str, Sequence[int], Sequence[bytes] | bytes]],
    parameters: Mapping[str, Any],
    outputs: Sequence[str],
    identity: str | None,
    limits: Limits,
    *,
    binary: bool,
) -> Ask:
    """A V2 request as gRPC hands it over: (name, datatype, shape, contents or raw bytes) each.

    Raises:
        Refusal: 400.
    """
    described = [{"name": n, "datatype": t, "shape": list(s), "data": d} for n, t, s, d in tensors]
    tensor = _tensor(described)
    count = _shape(tensor, limits)
    data = tensor["data"]
    parts = list(_unpacked(data)) if isinstance(data, bytes) else list(data)
    if len(parts) != count:
        raise Refusal(400, f"{INPUT}: the shape says {count} items, the data has {len(parts)}")
    names = [_decoded(part, i) for i, part in enumerate(parts)]
    _require_names(names, limits, INPUT)
    top_k, min_probability = _parameters(dict(parameters), limits)
    listed = [{"name": name} for name in outputs] or None
    wanted = _outputs(listed, {"binary_data_output": binary}, limits)
    return Ask(names, top_k, min_probability, identity, wanted)


def _json(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if b"\\ud" in text.lower():
            # A lone surrogate is bad in one item: read on, so that the item can be named.
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                pass
        where = f"line {error.lineno}, column {error.colno}"
        raise Refusal(400, f"the body is not JSON: {where}") from None


def _object(value: Any, what: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(400, f"{what}: expected an object with {', '.join(sorted(keys))}")
    if not keys.issuperset(value):
        raise Refusal(400, f"{what}: only {', '.join(sorted(keys))} may stand here")
    return value


def _instance(item: Any, i: int) -> Any:
    if type(item) is dict:
        if set(item) != {INPUT}:
            raise Refusal(400, f"instances[{i}]: expected an object with {INPUT} only")
        return item[INPUT]
    return item


def _require_count(count: int, limits: Limits, what: str) -> None:
    if not 1 <= count <= limits.items:
        raise Refusal(400, f"{what}: from 1 to {limits.items} items, not {count}")


def _require_names(names: Sequence[Any], limits: Limits, what: str) -> None:
    for i, name in enumerate(names):
        if type(name) is not str:
            raise Refusal(400, f"{what}[{i}]: expected a string")
        if len(name) > limits.name_characters:
            raise Refusal(
                400,
                f"{what}[{i}]: at most {limits.name_characters} characters, not {len(name)}",
            )
        if _CONTROL.search(name):
            raise Refusal(400, f"{what}[{i}]: control characters and line breaks are not allowed")
        if name.isascii():
            blank = not name or name.isspace()
        else:
            if _SURROGATE.search(name):
                raise Refusal(400, f"{what}[{i}]: a lone surrogate is not text")
            blank = not clean(name)
        if blank:
            raise Refusal(400, f"{what}[{i}]: the name is empty or blank")


def _parameters(value: Any, limits: Limits, more: frozenset[str] | set[str] = frozenset()) -> Any:
    """(top_k, min_probability)."""
    default = min(limits.top_k, limits.labels)
    if value is None:
        return default, 0.0
    tree = _object(value, "parameters", {"top_k", "min_probability", *more})
    top_k, floor = tree.get("top_k", default), tree.get("min_probability", 0.0)
    whole = _whole(top_k)
    if whole is None or not 1 <= whole <= limits.labels:
        raise Refusal(400, f"parameters.top_k: a whole number from 1 to {limits.labels}")
    if type(floor) not in (int, float) or not 0.0 <= floor <= 1.0:
        raise Refusal(400, "parameters.min_probability: a number from 0 to 1")
    return whole, float(floor)


def _whole(value: Any) -> int | None:
    """A whole number, which JSON may spell 2 or 2.0."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _parts(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    if json_length is None:
        return body, b""
    header = "Inference-Header-Content-Length"
    if not (json_length.isascii() and json_length.isdigit() and len(json_length) <= 12):
        raise Refusal(400, f"{header}: expected a whole number of bytes")
    length = int(json_length)
    if length > len(body):
        raise Refusal(400, f"{header}: {length} is more than the body's {len(body)} bytes")
    return body[:length], body[length:]


def _tensor(inputs: Any) -> dict[str, Any]:
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise Refusal(400, f"inputs: expected one tensor, {INPUT}")
    keys = {"name", "datatype", "shape", "data", "parameters"}
    tensor = _object(inputs[0], "inputs[0]", keys)
    if tensor.get("name") != INPUT:
        raise Refusal(400, f"inputs[0].name: expected {INPUT}")
    if tensor.get("datatype") != "BYTES":
        raise Refusal(400, "inputs[0].datatype: expected BYTES")
    return tensor


def _shape(tensor: Mapping[str, Any], limits: Limits) -> int:
    shape = tensor.get("shape")
    count = _whole(shape[0]) if isinstance(shape, list) and len(shape) == 1 else None
    if count is None:
        raise Refusal(400, "inputs[0].shape: expected [n]")
    _require_count(count, limits, INPUT)
    return count


def _tensor_names(
    tensor: Mapping[str, Any], binary: bytes, count: int, *, has_binary: bool
) -> list[Any]:
    tree = _object(tensor.get("parameters") or {}, "inputs[0].parameters", {"binary_data_size"})
    size = tree.get("binary_data_size")
    if size is None:
        data = tensor.get("data")
        if not isinstance(data, list):
            raise Refusal(400, "inputs[0].data: expected a list of strings")
        if binary:
            raise Refusal(400, f"{len(binary)} bytes follow the JSON that no input lays claim to")
    else:
        if "data" in tensor:
            raise Refusal(400, "inputs[0]: data and binary_data_size exclude each other")
        if not has_binary:
            raise Refusal(400, "binary_data_size needs the header Inference-Header-Content-Length")
        if type(size) is not int or size != len(binary):
            raise Refusal(400, f"binary_data_size: the body has {len(binary)} bytes of binary data")
        data = [_decoded(part, i) for i, part in enumerate(_unpacked(binary))]
    if len(data) != count:
        raise Refusal(400, f"{INPUT}: the shape says {count} items, the data has {len(data)}")
    return data


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Elements of a BYTES tensor: each its length as four bytes, little end first, then itself."""
    at, item = 0, 0
    while at < len(data):
        if at + 4 > len(data):
            raise Refusal(400, f"{INPUT}[{item}]: the binary data ends inside a length")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise Refusal(400, f"{INPUT}[{item}]: the binary data ends before the stated length")
        yield data[at : at + length]
        at, item = at + length, item + 1


def _decoded(part: bytes, item: int) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise Refusal(400, f"{INPUT}[{item}]: not UTF-8") from None


def _outputs(
    value: Any, parameters: Mapping[str, Any], limits: Limits
) -> tuple[tuple[str, bool], ...]:
    everywhere = parameters.get("binary_data_output", False)
    if type(everywhere) is not bool:
        raise Refusal(400, "parameters.binary_data_output: true or false")
    if value is None:
        return tuple((name, everywhere) for name in limits.outputs)
    if not isinstance(value, list) or not value:
        raise Refusal(400, "outputs: expected a list of outputs")
    wanted: dict[str, bool] = {}
    for i, item in enumerate(value):
        tree = _object(item, f"outputs[{i}]", {"name", "parameters"})
        name = tree.get("name")
        if not isinstance(name, str) or name not in limits.outputs or name in wanted:
            raise Refusal(400, f"outputs[{i}].name: one of {', '.join(limits.outputs)}, each once")
        more = _object(tree.get("parameters") or {}, f"outputs[{i}].parameters", {"binary_data"})
        binary = more.get("binary_data", everywhere)
        if type(binary) is not bool:
            raise Refusal(400, f"outputs[{i}].parameters.binary_data: true or false")
        wanted[name] = binary
    return tuple(wanted.items())
