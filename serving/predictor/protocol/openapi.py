"""The OpenAPI document, generated from the models."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from kserve.protocol.rest import v2_datamodels as kserve
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.predictor.protocol.models import ErrorResponse, LivenessResponse, Models

_GET_ERRORS = (405, 503)
_POST_ERRORS = (400, 405, 408, 413, 415, 429, 503, 504)
Operation = tuple[str, type[BaseModel] | None, type[BaseModel]]
"""Summary, model of the request (None: GET), model of the response."""


def operations(model: str, models: Models) -> Mapping[str, Operation]:
    """Return the operation of each documented path."""
    v1, v2 = f"/v1/models/{model}", f"/v2/models/{model}"
    predict, explain = "Predict the department of products", "Explain predictions word by word"
    return {
        "/": ("Liveness", None, LivenessResponse),
        "/v1/models": ("List of models", None, kserve.ListModelsResponse),
        v1: ("Model readiness", None, kserve.ModelReadyResponse),
        f"{v1}:predict": (predict, models.predict_request, models.predict_response),
        f"{v1}:explain": (explain, models.explain_request, models.explain_response),
        "/v2": ("Server metadata", None, kserve.ServerMetadataResponse),
        "/v2/health/live": ("Liveness", None, kserve.ServerLiveResponse),
        "/v2/health/ready": ("Server readiness", None, kserve.ServerReadyResponse),
        "/v2/models": ("List of models", None, kserve.ListModelsResponse),
        v2: ("Model metadata", None, kserve.ModelMetadataResponse),
        f"{v2}/ready": ("Model readiness", None, kserve.ModelReadyResponse),
        f"{v2}/infer": (predict, models.infer_request, kserve.InferenceResponse),
    }


def document(model: str, models: Models) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of one bundle's API."""
    table = operations(model, models)
    used = dict.fromkeys((response, "serialization") for *_, response in table.values())
    used |= dict.fromkeys((request, "validation") for _, request, _ in table.values() if request)
    refs, schemas = models_json_schema(
        [*used, (ErrorResponse, "serialization")], ref_template="#/components/schemas/{model}"
    )

    def response(status: int, body: type[BaseModel]) -> dict[str, Any]:
        content = {"application/json": {"schema": refs[body, "serialization"]}}
        return {str(status): {"description": HTTPStatus(status).phrase, "content": content}}

    paths: dict[str, Any] = {}
    for path, (summary, request, success) in table.items():
        operation = {"summary": summary, "responses": response(200, success)}
        for status in _POST_ERRORS if request else _GET_ERRORS:
            operation["responses"] |= response(status, ErrorResponse)
        if request:
            content = {"application/json": {"schema": refs[request, "validation"]}}
            operation["requestBody"] = {"required": True, "content": content}
        paths[path] = {"post" if request else "get": operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Grocer predictor", "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }
