"""Requests of both protocols, read strictly into one `Ask`.

Whatever is accepted here is scored; whatever is not is refused with 400 and a sentence that
names the place and the limit, never the content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grocer.model.prompt_template import clean
from serving.predictor.errors import Refusal
from serving.predictor.tensor import (
    INPUT,
    decoded,
    elements,
    length,
    only_tensor,
    split_body,
    unpacked,
)
from serving.predictor.values import object_with, parse, whole

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
    tree = object_with(parse(body), "the body", {"instances", "parameters"})
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
    text, binary = split_body(body, json_length)
    # KServe's own client repeats the model's name, which the path has told already.
    keys = {"id", "inputs", "model_name", "model_version", "outputs", "parameters"}
    tree = object_with(parse(text), "the body", keys)
    identity = tree.get("id")
    if identity is not None and (not isinstance(identity, str) or len(identity) > 256):
        raise Refusal(400, "id: expected a string of at most 256 characters")
    tensor = only_tensor(tree.get("inputs"))
    count = _count(tensor, limits)
    names = elements(tensor, binary, count, has_binary=json_length is not None)
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
    listed = [{"name": n, "datatype": t, "shape": list(s), "data": d} for n, t, s, d in tensors]
    tensor = only_tensor(listed)
    count = _count(tensor, limits)
    data = tensor["data"]
    parts = list(unpacked(data)) if isinstance(data, bytes) else list(data)
    if len(parts) != count:
        raise Refusal(400, f"{INPUT}: the shape says {count} items, the data has {len(parts)}")
    names = [decoded(part, i) for i, part in enumerate(parts)]
    _require_names(names, limits, INPUT)
    top_k, min_probability = _parameters(dict(parameters), limits)
    named = [{"name": name} for name in outputs] or None
    wanted = _outputs(named, {"binary_data_output": binary}, limits)
    return Ask(names, top_k, min_probability, identity, wanted)


def _instance(item: Any, i: int) -> Any:
    if type(item) is dict:
        if set(item) != {INPUT}:
            raise Refusal(400, f"instances[{i}]: expected an object with {INPUT} only")
        return item[INPUT]
    return item


def _count(tensor: Mapping[str, Any], limits: Limits) -> int:
    count = length(tensor)
    _require_count(count, limits, INPUT)
    return count


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
    tree = object_with(value, "parameters", {"top_k", "min_probability", *more})
    top_k, floor = tree.get("top_k", default), tree.get("min_probability", 0.0)
    asked = whole(top_k)
    if asked is None or not 1 <= asked <= limits.labels:
        raise Refusal(400, f"parameters.top_k: a whole number from 1 to {limits.labels}")
    if type(floor) not in (int, float) or not 0.0 <= floor <= 1.0:
        raise Refusal(400, "parameters.min_probability: a number from 0 to 1")
    return asked, float(floor)


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
        tree = object_with(item, f"outputs[{i}]", {"name", "parameters"})
        name = tree.get("name")
        if not isinstance(name, str) or name not in limits.outputs or name in wanted:
            raise Refusal(400, f"outputs[{i}].name: one of {', '.join(limits.outputs)}, each once")
        more = object_with(
            tree.get("parameters") or {}, f"outputs[{i}].parameters", {"binary_data"}
        )
        binary = more.get("binary_data", everywhere)
        if type(binary) is not bool:
            raise Refusal(400, f"outputs[{i}].parameters.binary_data: true or false")
        wanted[name] = binary
    return tuple(wanted.items())
