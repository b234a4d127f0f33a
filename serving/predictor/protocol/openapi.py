"""The routes of the API, and their OpenAPI document, which is generated from the models."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple

from kserve.protocol.rest import v2_datamodels as kserve
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.predictor.protocol.models import ErrorResponse, LivenessResponse, Models

_GET_ERRORS = (405, 503)
_POST_ERRORS = (400, 405, 408, 413, 415, 429, 503, 504)


class Route(NamedTuple):
    """A route in the OpenAPI document; `name` is its name in metrics and logs."""

    path: str
    name: str
    summary: str
    response: type[BaseModel] | str
    """A model, or the name of one of `Models`."""
    request: str | None = None
    """Name of one of `Models`; None: the method is GET."""

    @property
    def method(self) -> str:
        return "POST" if self.request else "GET"


_V1, _V2 = "/v1/models/{model}", "/v2/models/{model}"
_PREDICT = "Predict the department of products"
_EXPLAIN = "Explain predictions by the effect of each word"
ROUTES = (
    Route("/", "live", "Liveness", LivenessResponse),
    Route("/v1/models", "models", "List of models", kserve.ListModelsResponse),
    Route(_V1, "ready", "Model readiness", kserve.ModelReadyResponse),
    Route(f"{_V1}:predict", "predict", _PREDICT, "predict_response", "predict_request"),
    Route(f"{_V1}:explain", "explain", _EXPLAIN, "explain_response", "explain_request"),
    Route("/v2", "server", "Server metadata", kserve.ServerMetadataResponse),
    Route("/v2/health/live", "live", "Liveness", kserve.ServerLiveResponse),
    Route("/v2/health/ready", "ready", "Server readiness", kserve.ServerReadyResponse),
    Route("/v2/models", "models", "List of models", kserve.ListModelsResponse),
    Route(_V2, "model", "Model metadata", kserve.ModelMetadataResponse),
    Route(f"{_V2}/ready", "ready", "Model readiness", kserve.ModelReadyResponse),
    Route(f"{_V2}/infer", "infer", _PREDICT, kserve.InferenceResponse, "infer_request"),
)


def routes(model: str, *, ui: bool) -> dict[str, tuple[str, str]]:
    """Return method and name of each path that is served."""
    served = {route.path.format(model=model): (route.method, route.name) for route in ROUTES}
    others = ("metrics", "openapi.json", "ui") if ui else ("metrics", "openapi.json")
    return served | {f"/{path}": ("GET", path.removesuffix(".json")) for path in others}


def document(model: str, models: Models) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of one bundle's API."""
    requests = {r: getattr(models, r.request) for r in ROUTES if r.request}
    responses = {
        r: getattr(models, r.response) if isinstance(r.response, str) else r.response
        for r in ROUTES
    }
    used = [*requests.values(), *responses.values(), ErrorResponse]
    refs, schemas = models_json_schema(
        [(each, "validation") for each in dict.fromkeys(used)],
        ref_template="#/components/schemas/{model}",
    )

    def content(body: type[BaseModel]) -> dict[str, Any]:
        return {"content": {"application/json": {"schema": refs[body, "validation"]}}}

    paths = {}
    for route, response in responses.items():
        errors = dict.fromkeys(_POST_ERRORS if route.request else _GET_ERRORS, ErrorResponse)
        operation: dict[str, Any] = {"summary": route.summary, "responses": {}}
        for status, body in ({200: response} | errors).items():
            description = {"description": HTTPStatus(status).phrase}
            operation["responses"][str(status)] = description | content(body)
        if route.request:
            operation["requestBody"] = {"required": True} | content(requests[route])
        paths[route.path.format(model=model)] = {route.method.lower(): operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Grocer predictor", "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }
