"""Parse the bodies of V1, V2 and gRPC requests.

An invalid request raises a `RequestError` with status 400: the path of the first invalid value
and the violated constraint, never the value.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from kserve import InferRequest
from kserve.protocol.infer_type import to_http_parameters
from pydantic import BaseModel, ValidationError

from serving.predictor.errors import RequestError
from serving.predictor.protocol.models import ItemError, Models

LENGTH_HEADER = "inference-header-content-length"
_FIELD = re.compile(rb'"\s*:')
_NESTED = re.compile(rb"[\[,:]\s*[\[{]")
_SMALL_BODY_BYTES = 64 * 1024
_UNION_BRANCHES = (("constrained-str",), ("NamedProduct",))


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """A valid request."""

    names: Sequence[str]
    top_k: int
    min_probability: float
    id: str = ""
    """The client's id of a V2 request."""
    outputs: Mapping[str, bool] | None = None
    """Requested V2 outputs, and whether each is binary; None: the request is V1."""


def parse_v1(body: bytes, model: type[BaseModel], models: Models) -> PredictionRequest:
    """Parse a V1 body with `models.predict_request` or `models.explain_request`."""
    request = _validate_json(model, body, models)
    parameters = request.parameters or models.defaults
    return PredictionRequest(request.instances, parameters.top_k, parameters.min_probability)


def parse_v2(body: bytes, json_length: str | None, models: Models) -> PredictionRequest:
    """Parse a V2 body: JSON, followed by the data of the tensor if that is binary.

    Args:
        json_length: the header `Inference-Header-Content-Length`; None if it is absent.
    """
    text, binary = _split(body, json_length)
    request = _validate_json(models.infer_request, text, models)
    tensor = request.inputs[0]
    size = tensor.parameters and tensor.parameters.binary_data_size
    if (tensor.data is None) == (size is None):
        raise RequestError(400, "inputs[0]: expected either data or binary_data_size")
    if (size or 0) != len(binary):
        raise RequestError(
            400,
            f"inputs[0].parameters.binary_data_size: {len(binary)} bytes follow the JSON part, "
            f"whose length is the header {LENGTH_HEADER}",
        )
    names = tensor.data if size is None else _decode(_elements(binary, models), models)
    return _v2(request, names, models)


def parse_grpc(message: InferRequest, models: Models) -> PredictionRequest:
    """Parse a message that KServe's gRPC server received."""
    parameters = to_http_parameters(message.parameters or {})
    tree = {
        "id": message.id,
        "parameters": parameters | {"binary_data_output": message.use_binary_outputs},
        "inputs": [
            {"name": i.name, "datatype": i.datatype, "shape": list(i.shape)} for i in message.inputs
        ],
        "outputs": [{"name": o.name} for o in message.request_outputs or ()] or None,
    }
    request = _validate(models.infer_request, tree)
    raw, contents = message.inputs[0]._raw_data, message.inputs[0].data
    elements = list(contents or ()) if raw is None else _elements(raw, models)
    return _v2(request, _decode(elements, models), models)


def describe(error: ValidationError, *parent: str | int) -> str:
    """Return path and constraint of the first invalid value, without the value.

    Args:
        parent: path of the object that was validated.
    """
    errors = error.errors(include_url=False, include_input=False)
    # An instance is a string or an object: the other branch of the union fails as well.
    first = next((e for e in errors if e["loc"][-1:] not in _UNION_BRANCHES), errors[0])
    text = re.sub(" after validation, not .*", "", first["msg"])
    path, message = [*parent, *first["loc"]], text[0].lower() + text[1:]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ItemError):
        path.append(cause.item)
        message = str(cause)
    elif first["type"] == "extra_forbidden":
        path.pop()  # the name of the field is the client's input
        message = "unknown field"
    elif path[-3:-2] == ["parameters"]:
        del path[-2:]  # the name of an unknown parameter, and a branch of its union
        message = "expected strings, numbers or booleans"
    # A location also contains the branches of unions, which are not field names.
    parts = (f"[{p}]" if isinstance(p, int) else f".{p}" for p in path if _is_step(p))
    return f"{''.join(parts).removeprefix('.') or 'request body'}: {message}"


def _is_step(part: str | int) -> bool:
    return isinstance(part, int) or (part.isidentifier() and part.islower())


def _validate_json(model: type[BaseModel], body: bytes, models: Models) -> Any:
    # pydantic creates an error object for each unknown field, and many nested lists slow down
    # Python's garbage collector. The limit allows four matches per item, because a product name
    # can contain the patterns too.
    if len(body) > _SMALL_BODY_BYTES:
        most = 4 * models.max_items + 100
        nested = [_NESTED] if body.count(b"[") + body.count(b"{") > most else []
        for pattern in (_FIELD, *nested):
            if next(islice(pattern.finditer(body), most, None), None):
                raise RequestError(400, "request body: too many fields or lists")
    request = _validate(model, body)
    # After validation, because pydantic limits the depth of the nesting.
    _KEYS.decode(body.decode())
    return request


def _require_distinct_keys(pairs: list[tuple[str, Any]]) -> None:
    """Reject an object with a duplicate key, of which pydantic would take the last."""
    if len(pairs) > 1 and len(dict(pairs)) < len(pairs):
        raise RequestError(400, "request body: duplicate key")


# Not the numbers, because int() limits their digits.
_KEYS = json.JSONDecoder(object_pairs_hook=_require_distinct_keys, parse_int=str)


def _validate(model: type[BaseModel], body: bytes | dict[str, Any]) -> Any:
    try:
        if isinstance(body, bytes):
            return model.model_validate_json(body)
        return model.model_validate(body)
    except ValidationError as error:
        raise RequestError(400, describe(error)) from None


def _v2(request: Any, names: Sequence[str], models: Models) -> PredictionRequest:
    (count,) = request.inputs[0].shape
    if count != len(names):
        raise RequestError(400, f"inputs[0].shape: [{count}] does not match {len(names)} elements")
    parameters = request.parameters or models.defaults
    binary = getattr(parameters, "binary_data_output", False)
    outputs = dict.fromkeys(models.outputs, binary)
    if request.outputs:
        chosen = {o.name: o.parameters and o.parameters.binary_data for o in request.outputs}
        outputs = {name: binary if flag is None else flag for name, flag in chosen.items()}
    top_k, min_probability = parameters.top_k, parameters.min_probability
    return PredictionRequest(names, top_k, min_probability, request.id or "", outputs)


def _split(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    """Split a body into JSON and binary data."""
    if json_length is None:
        return body, b""
    if not re.fullmatch("[0-9]{1,12}", json_length) or int(json_length) > len(body):
        raise RequestError(400, f"{LENGTH_HEADER}: expected an integer from 0 to {len(body)}")
    return body[: int(json_length)], body[int(json_length) :]


def _elements(data: bytes, models: Models) -> list[bytes]:
    """Split a binary tensor; at most one element more than the limit, for the error."""
    elements, start = [], 0
    try:
        while start < len(data) and len(elements) <= models.max_items:
            (length,) = struct.unpack_from("<I", data, start)
            start += 4 + length
            elements.append(data[start - length : start])
    except struct.error:
        start = len(data) + 1
    if start > len(data):
        raise RequestError(400, "inputs[0]: the binary data is truncated")
    return elements


def _decode(elements: Sequence[Any], models: Models) -> list[str]:
    """Decode and validate the elements of a binary tensor."""
    try:
        return models.names.validate_python(elements, strict=False)
    except ValidationError as error:
        raise RequestError(400, describe(error, "inputs", 0, "data")) from None
