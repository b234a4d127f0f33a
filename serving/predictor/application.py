"""KServe's application, with the deviations from KServe 0.21 that Grocer's API needs.

Closed:
- Repository routes (`middleware.routes`, `ClosedRepository` for gRPC): they unload the model
  without authentication.

Changed:
- `decode`: our models validate bodies. KServe returns 422 with the input for malformed V2 JSON,
  500 for malformed binary data, and interprets CloudEvents.
- `live`: fails after a device failure. KServe is live as long as the process runs.
- `ready`: readiness of the model, false while draining. KServe's /v2/health/ready is always 200.
- `explain`: returns no headers. KServe returns those of the request, credentials included.
- Exception handlers: return `{"error": …}`. KServe logs a traceback for each 4xx, and answers
  with the text of unexpected exceptions.
- OpenAPI: generated from our models. KServe's describes any model.
- Signals (`server`): drain first. KServe closes the port before load balancers notice.

Removed:
- The timing middleware: it matches each route again, for a log line that is disabled.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from kserve.errors import ModelNotReady, ServerNotReady
from kserve.model import InferenceVerb
from kserve.model_server import app
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from starlette.requests import Request
from starlette.responses import JSONResponse

from grocer.config.deployment import ServingConfig
from serving.predictor.errors import INTERNAL_ERROR, RequestError
from serving.predictor.model import Predictor
from serving.predictor.protocol.openapi import document
from serving.predictor.protocol.requests import LENGTH_HEADER, parse_v1, parse_v2
from serving.predictor.ui import page


def configure(predictor: Predictor, config: ServingConfig) -> None:
    """Change KServe's application; called after its routes were registered."""
    app.user_middleware.clear()
    app.exception_handlers.clear()
    for error in (RequestError, ModelNotReady, ServerNotReady, Exception):
        app.add_exception_handler(error, _error_response)
    app.openapi = cache(partial(document, predictor.name, predictor.models))
    if config.ui:
        app.add_route("/ui", page(predictor.name, predictor.bundle, config))


async def _error_response(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, ModelNotReady | ServerNotReady):
        error = RequestError(503, "the model is not ready", retry_after=2)
    elif not isinstance(error, RequestError):
        error = INTERNAL_ERROR  # the middleware logs the traceback
    return JSONResponse({"error": error.message}, error.status, headers=error.headers)


class ClosedRepository(ModelRepositoryExtension):
    """Rejects requests to load or unload the model."""

    async def load(self, model_name: str) -> None:
        raise RequestError(404, "models cannot be loaded through the API")

    async def unload(self, model_name: str) -> None:
        raise RequestError(404, "models cannot be unloaded through the API")


class GrocerDataPlane(DataPlane):
    """Parses bodies, and reports liveness and readiness of the model."""

    def __init__(self, registry: Any, predictor: Predictor) -> None:
        super().__init__(registry)
        self._predictor, self._models = predictor, predictor.models

    async def live(self) -> dict[str, str]:  # type: ignore[override]
        if self._predictor.failed:
            raise RequestError(503, "the model's device failed")
        return {"status": "alive"}

    async def ready(self) -> bool:
        return bool(self._predictor.ready) and not self._predictor.draining

    async def model_ready(
        self, model_name: str, disable_predictor_health_check: bool = False
    ) -> bool:
        # KServe disables the check for predictions, which are served while draining.
        if self._predictor.draining and not disable_predictor_health_check:
            return False
        return bool(await super().model_ready(model_name, disable_predictor_health_check))

    def metadata(self) -> dict[str, Any]:
        extensions = ["binary_tensor_data"]
        return super().metadata() | {"name": self._predictor.name, "extensions": extensions}

    def decode(
        self,
        body: bytes,
        headers: Mapping[str, str],
        protocol_version: str = "v1",
        model_name: str | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Parse a V2 body; `infer` and `explain` parse V1 bodies."""
        if protocol_version == "v1":
            return body, {}
        return parse_v2(body, headers.get(LENGTH_HEADER), self._models), {}

    async def infer(
        self, model_name: str, request: Any, headers: Mapping[str, str] | None = None
    ) -> tuple[Any, dict[str, str]]:
        if isinstance(request, bytes):
            request = parse_v1(request, self._models.predict_request, self._models)
        return await super().infer(model_name, request, headers)

    async def explain(
        self, model_name: str, request: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        parsed = parse_v1(request, self._models.explain_request, self._models)
        response, _ = await self._predictor(parsed, verb=InferenceVerb.EXPLAIN, headers=headers)
        return response, {}
