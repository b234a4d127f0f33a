"""The server's life: checked, live, ready, serving, draining, gone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from types import FrameType
from typing import Any

import uvicorn
from kserve import ModelServer
from kserve.errors import ModelNotReady, ServerNotLive, ServerNotReady
from kserve.model_server import app
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.rest.server import RESTServer
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from grocer.config.deployment import ServingConfig
from grocer.errors import GrocerError
from grocer.release.bundle import Bundle
from serving.predictor.errors import Refusal
from serving.predictor.metrics import Metrics
from serving.predictor.middleware import Guard
from serving.predictor.model import NAME, ClosedRepository, Load, Predictor, StrictDataPlane
from serving.predictor.openapi import document
from serving.predictor.ui import page

log = logging.getLogger("grocer.server")


class Server(ModelServer):
    """KServe's server on an interface of our choice, with our guard around its application.

    Attributes:
        failure: why it stopped by itself.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: ServingConfig,
        load: Load,
        host: str,
        port: int,
        grpc_port: int | None,
    ) -> None:
        super().__init__(
            http_port=port,
            grpc_port=grpc_port or 0,
            workers=1,
            enable_grpc=grpc_port is not None,
            enable_latency_logging=False,
            grace_period=config.grace_seconds,
        )
        self.failure: BaseException | None = None
        self._host, self._config = host, config
        metrics = Metrics(bundle, low_confidence=config.low_confidence, window=config.drift_window)
        self._predictor = Predictor(bundle, config, metrics, load, self._fail)
        self.register_model(self._predictor)
        self.dataplane = StrictDataPlane(self.registered_models, self._predictor)
        self.model_repository_extension = ClosedRepository(self.registered_models)
        room = self._predictor.batcher.require_room
        self._guard = Guard(app, config, metrics, room, NAME, bundle.digest)
        rest = RESTServer(
            self._guard,
            self.dataplane,
            self.model_repository_extension,
            port,
            grace_period=config.grace_seconds,
        )
        rest.config.host, rest.config.access_log = host, False
        rest.config.server_header = False
        rest.create_application()
        # KServe's one middleware times each request for a log line that nobody asked for, and
        # matches the routes once more to do so.
        app.user_middleware.clear()
        _answer_calmly(bundle, config)
        if config.ui:
            app.add_route("/ui", page(NAME, bundle, config))
        self._http = _Http(rest.config, self._drain)

    def start(self, models: list[Any]) -> None:
        """Serve until told to stop or until the device fails."""
        with asyncio.Runner(loop_factory=self._http.config.get_loop_factory()) as runner:
            runner.run(self._run())
        if self.failure is not None and not isinstance(self.failure, GrocerError):
            log.error("stopped", exc_info=self.failure)
            logging.shutdown()
            # A thread that hangs in a broken device would hold up the interpreter's own exit.
            os._exit(1)

    async def _run(self) -> None:
        self._predictor.start()
        watch = asyncio.create_task(self._watch())
        grpc = asyncio.create_task(self._grpc()) if self.enable_grpc else None
        address = f"http://{self._host}:{self.http_port}"
        log.info("live on %s", address, extra={"digest": self._predictor.bundle.digest})
        await self._http.serve()
        watch.cancel()
        if grpc is not None:
            await self._grpc_server.stop(self.grace_period)
            await grpc
        self._predictor.stop()

    async def _grpc(self) -> None:
        self._grpc_server = GRPCServer(
            self.grpc_port,
            self.dataplane,
            self.model_repository_extension,
            kwargs={
                "grpc_max_send_message_length": self._config.max_body_bytes,
                "grpc_max_receive_message_length": self._config.max_body_bytes,
            },
            grace_period=self.grace_period,
        )
        await self._grpc_server.start(max_workers=1)

    async def _watch(self) -> None:
        """Take a forward pass that never ends for a failed device; say when the model is ready."""
        told = False
        while True:
            if self._predictor.ready and not told:
                told = True
                log.info("ready", extra={"digest": self._predictor.bundle.digest})
            if self._predictor.batcher.stalled_for() > self._config.stall_seconds:
                self._predictor.fail(TimeoutError("a forward pass does not end"))
            await asyncio.sleep(0.25)

    def _fail(self, error: BaseException) -> None:
        """Stop by itself; called on the event loop."""
        if self.failure is None:
            self.failure = error
            log.critical("the model failed: %s", type(error).__name__)
            # Long enough for a probe to see that it is not live, and for queued answers to leave.
            asyncio.get_running_loop().call_later(1.0, self._http.end)

    def _drain(self, sig: int) -> None:
        """On SIGTERM: not ready, yet answering until routers have noticed; on SIGINT: at once."""
        self._guard.draining = True
        seconds = self._config.drain_seconds if sig == signal.SIGTERM else 0.0
        log.info("draining for %g s", seconds)
        asyncio.get_running_loop().call_later(seconds, self._http.end)


class _Http(uvicorn.Server):
    """uvicorn, but a signal begins a drain; a second one ends it."""

    def __init__(self, config: uvicorn.Config, drain: Any) -> None:
        super().__init__(config)
        self._drain, self._told = drain, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._told:
            self.end()
            return
        self._told = True
        asyncio.get_running_loop().call_soon_threadsafe(self._drain, sig)

    def end(self) -> None:
        """Close the port, answer what is in flight, and return."""
        self.should_exit = True


def _answer_calmly(bundle: Bundle, config: ServingConfig) -> None:
    """Our handlers over KServe's, which log a traceback for each refusal and echo input."""

    async def refuse(_: Request, error: Refusal) -> JSONResponse:
        return JSONResponse({"error": error.message}, error.status, headers=error.headers)

    async def not_ready(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "the model is not ready"}, 503, headers={"retry-after": "2"})

    async def not_live(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "the model's device failed"}, 503)

    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    app.add_exception_handler(Refusal, refuse)
    app.add_exception_handler(ModelNotReady, not_ready)
    app.add_exception_handler(ServerNotReady, not_ready)
    app.add_exception_handler(ServerNotLive, not_live)
    app.add_exception_handler(HTTPException, http)
    app.openapi = lambda: document(NAME, bundle.labels, config, bundle.leaves)
