"""The OpenAPI document: what the predictor really reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grocer.config.deployment import ServingConfig
from grocer.model.hierarchy import Leaf
from serving.predictor.protocol import AISLE_OUTPUTS, OUTPUTS
from serving.predictor.tensor import INPUT

Schema = dict[str, Any]


def document(
    model: str, labels: Sequence[str], config: ServingConfig, leaves: Sequence[Leaf] = ()
) -> Schema:
    """OpenAPI 3.1 for the routes that are open; `leaves` are the aisles, where labels have any."""
    v1, v2 = f"/v1/models/{model}", f"/v2/models/{model}"
    predictions = _list_of("predictions", _ref("Prediction"))
    explanations = _list_of("explanations", _ref("Explanation"))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Grocer",
            "version": "1",
            "description": "Puts a product, known by its name, into exactly one department"
            + (" and one aisle of it." if leaves else "."),
        },
        "paths": {
            "/": {"get": _get("Whether the server lives", _object(status=_text()))},
            "/v2/health/live": {"get": _get("Whether the server lives", _object(live=_flag()))},
            "/v2/health/ready": {"get": _get("Whether the model answers", _object(ready=_flag()))},
            "/v2": {"get": _get("The server", {"type": "object"})},
            "/v1/models": {"get": _get("The models", _list_of("models", _text()))},
            "/v2/models": {"get": _get("The models", _list_of("models", _text()))},
            v1: {"get": _get("Whether the model answers", _readiness())},
            f"{v2}/ready": {"get": _get("Whether the model answers", _readiness())},
            v2: {"get": _get("Inputs and outputs of the model", {"type": "object"})},
            f"{v1}:predict": {"post": _post("Departments for names", "V1Request", predictions)},
            f"{v1}:explain": {
                "post": _post("Which words moved an answer", "ExplainRequest", explanations)
            },
            f"{v2}/infer": {"post": _post("Departments for names", "V2Request", _ref("V2Answer"))},
        },
        "components": {"schemas": _schemas(labels, config, leaves)},
    }


def _schemas(
    labels: Sequence[str], config: ServingConfig, leaves: Sequence[Leaf]
) -> dict[str, Schema]:
    name = {
        "type": "string",
        "minLength": 1,
        "maxLength": config.max_name_characters,
        "pattern": r"^[ -~]*[!-~][ -~]*$",
        "description": "A product's name. Any text without control characters is read; the "
        "pattern here is narrower, so that what it generates is always accepted.",
        "examples": ["Organic Bananas"],
    }
    share = {"type": "number", "minimum": 0, "maximum": 1}
    department = {"type": "string", "enum": list(labels)}
    parameters = {
        "top_k": {"type": "integer", "minimum": 1, "maximum": len(labels)},
        "min_probability": share,
    }
    # So short that it can't have too many words.
    brief = {**name, "maxLength": min(2 * config.explain_words - 1, config.max_name_characters)}
    ranked = _object(department=department, probability=share)
    effect = _object(word=_text(), effect={"type": "number"})
    return {
        "Name": name,
        "Parameters": _object((), **parameters),
        "ShortName": brief,
        "V1Request": _instances("Name", config.max_items),
        "ExplainRequest": _instances("ShortName", min(config.explain_items, config.max_items)),
        "Prediction": _object(
            department={"anyOf": [department, {"type": "null"}]},
            probability=share,
            alternatives={"type": "array", "items": ranked, "minItems": 1},
            **(_aisle(leaves) if leaves else {}),
        ),
        "Explanation": _object(
            department=department,
            probability=share,
            words={"type": "array", "items": effect},
        ),
        **_tensors(OUTPUTS + AISLE_OUTPUTS if leaves else OUTPUTS),
        "Error": _object(error=_text()),
    }


def _tensors(outputs: Sequence[str]) -> dict[str, Schema]:
    """V2's requests and answers."""
    tensor = {
        "name": {"const": INPUT},
        "datatype": {"const": "BYTES"},
        "shape": {"type": "array", "items": {"const": 1}, "minItems": 1, "maxItems": 1},
        "data": {"type": "array", "items": _ref("Name"), "minItems": 1, "maxItems": 1},
    }
    output = _object(
        name={"enum": list(outputs)},
        datatype={"enum": ["BYTES", "FP32"]},
        shape={"type": "array", "items": {"type": "integer"}},
        data={"type": "array"},
    )
    output["additionalProperties"] = True
    return {
        "V2Request": _object(
            ("inputs",),
            id={"type": "string", "maxLength": 256},
            inputs={"type": "array", "items": _object(**tensor), "minItems": 1, "maxItems": 1},
            outputs={
                "type": "array",
                "items": _object(name={"enum": list(outputs)}),
                "minItems": 1,
                "maxItems": 1,
            },
            parameters=_ref("Parameters"),
        ),
        "V2Answer": {
            "type": "object",
            "required": ["model_name", "id", "outputs"],
            "properties": {
                "model_name": _text(),
                "model_version": _text(),
                "id": _text(),
                "outputs": {"type": "array", "items": output, "minItems": 1},
            },
        },
    }


def _aisle(leaves: Sequence[Leaf]) -> dict[str, Schema]:
    """What a prediction says of the aisle."""
    names = list(dict.fromkeys(aisle for _, aisle in leaves))
    return {
        "aisle": {
            "anyOf": [{"type": "string", "enum": names}, {"type": "null"}],
            "description": "The likeliest aisle of the likeliest department; null where "
            "`aisle_probability` is below `min_probability`, or the department has no aisles.",
        },
        "aisle_probability": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Of department and aisle together: over a department's aisles these "
            "sum to its probability. 0 where the department has no aisles.",
        },
    }


def _object(required: Sequence[str] | None = None, **properties: Schema) -> Schema:
    names = list(properties) if required is None else list(required)
    return {
        "type": "object",
        "properties": properties,
        "required": names,
        "additionalProperties": False,
    }


def _instances(name: str, most: int) -> Schema:
    instance = {"anyOf": [_ref(name), _object(**{INPUT: _ref(name)})]}
    items = {"type": "array", "items": instance, "minItems": 1, "maxItems": most}
    return _object(("instances",), instances=items, parameters=_ref("Parameters"))


def _list_of(name: str, items: Schema) -> Schema:
    return _object(**{name: {"type": "array", "items": items}})


def _readiness() -> Schema:
    return _object(name=_text(), ready=_flag())


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _text() -> Schema:
    return {"type": "string"}


def _flag() -> Schema:
    return {"type": "boolean"}


def _get(summary: str, answer: Schema) -> Schema:
    return {"summary": summary, "responses": _responses(answer, {"503": "not ready, or not live"})}


def _post(summary: str, request: str, answer: Schema) -> Schema:
    refusals = {
        "400": "the request is not what this document says",
        "408": "the body did not arrive in time",
        "413": "the body is too large",
        "415": "not JSON in UTF-8",
        "429": "the queue is full; Retry-After says when to come back",
        "503": "the model is not ready, or its device failed",
        "504": "no answer within the deadline",
    }
    body = {"required": True, "content": {"application/json": {"schema": _ref(request)}}}
    return {"summary": summary, "requestBody": body, "responses": _responses(answer, refusals)}


def _responses(answer: Schema, refusals: dict[str, str]) -> Schema:
    error = {"application/json": {"schema": _ref("Error")}}
    return {
        "200": {"description": "the answer", "content": {"application/json": {"schema": answer}}},
        **{
            code: {"description": text, "content": error}
            for code, text in {**refusals, "405": "another method"}.items()
        },
    }
