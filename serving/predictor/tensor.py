"""The one tensor of a V2 request: BYTES [n], in JSON or in the binary data behind it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from serving.predictor.errors import Refusal
from serving.predictor.values import object_with, whole

INPUT = "product_name"


def split_body(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    """The JSON, and the binary data behind it.

    Args:
        json_length: the header `Inference-Header-Content-Length`, if it was sent.

    Raises:
        Refusal: 400.
    """
    if json_length is None:
        return body, b""
    header = "Inference-Header-Content-Length"
    if not (json_length.isascii() and json_length.isdigit() and len(json_length) <= 12):
        raise Refusal(400, f"{header}: expected a whole number of bytes")
    end = int(json_length)
    if end > len(body):
        raise Refusal(400, f"{header}: {end} is more than the body's {len(body)} bytes")
    return body[:end], body[end:]


def only_tensor(inputs: Any) -> dict[str, Any]:
    """The tensor that must be the only one.

    Raises:
        Refusal: 400.
    """
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise Refusal(400, f"inputs: expected one tensor, {INPUT}")
    keys = {"name", "datatype", "shape", "data", "parameters"}
    tensor = object_with(inputs[0], "inputs[0]", keys)
    if tensor.get("name") != INPUT:
        raise Refusal(400, f"inputs[0].name: expected {INPUT}")
    if tensor.get("datatype") != "BYTES":
        raise Refusal(400, "inputs[0].datatype: expected BYTES")
    return tensor


def length(tensor: Mapping[str, Any]) -> int:
    """n, by its shape.

    Raises:
        Refusal: 400.
    """
    shape = tensor.get("shape")
    count = whole(shape[0]) if isinstance(shape, list) and len(shape) == 1 else None
    if count is None:
        raise Refusal(400, "inputs[0].shape: expected [n]")
    return count


def elements(
    tensor: Mapping[str, Any], binary: bytes, count: int, *, has_binary: bool
) -> list[Any]:
    """Its data, from JSON or from `binary`; what JSON holds need not be strings.

    Raises:
        Refusal: 400: it has not `count` elements, or both or neither of the two.
    """
    tree = object_with(tensor.get("parameters") or {}, "inputs[0].parameters", {"binary_data_size"})
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
        data = [decoded(part, i) for i, part in enumerate(unpacked(binary))]
    if len(data) != count:
        raise Refusal(400, f"{INPUT}: the shape says {count} items, the data has {len(data)}")
    return data


def unpacked(data: bytes) -> Iterator[bytes]:
    """Elements of a BYTES tensor: each its length as four bytes, little end first, then itself.

    Raises:
        Refusal: 400: the data ends too early.
    """
    at, item = 0, 0
    while at < len(data):
        if at + 4 > len(data):
            raise Refusal(400, f"{INPUT}[{item}]: the binary data ends inside a length")
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + size > len(data):
            raise Refusal(400, f"{INPUT}[{item}]: the binary data ends before the stated length")
        yield data[at : at + size]
        at, item = at + size, item + 1


def decoded(part: bytes, item: int) -> str:
    """The text of an element.

    Raises:
        Refusal: 400: it is not UTF-8.
    """
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise Refusal(400, f"{INPUT}[{item}]: not UTF-8") from None
