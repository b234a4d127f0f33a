"""The HTTP and gRPC server: loading, ready, draining, stopped."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from grpc import aio
from kserve import ModelServer
from kserve.protocol.rest.server import RESTServer

from grocer.config.deployment import ServingConfig
from grocer.errors import ConfigError, GrocerError
from grocer.release.bundle import LoadedBundle
from serving.predictor import application
from serving.predictor.connection import Connection, Turns, connection_limit, enforce
from serving.predictor.grpc_server import Servicer, grpc_server
from serving.predictor.metrics import Metrics
from serving.predictor.middleware import RequestMiddleware
from serving.predictor.model import Load, Predictor

log = logging.getLogger("grocer.server")

_JOIN_SECONDS = 3.0
"""Time for the model thread to end; with it, a pod stops within its grace period."""


class Server(ModelServer):
    """KServe's server with the changes of `application` and a graceful shutdown.

    Attributes:
        failure: why it stopped without a signal.
    """

    def __init__(
        self,
        bundle: LoadedBundle,
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
        self._predictor = Predictor(bundle, config, Metrics(bundle, config), load, self._fail)
        self.register_model(self._predictor)
        self.dataplane = application.GrocerDataPlane(self.registered_models, self._predictor)
        self.model_repository_extension = application.ClosedRepository(self.registered_models)
        self._middleware = RequestMiddleware(application.app, self._predictor, config)
        rest = RESTServer(
            self._middleware,
            self.dataplane,
            self.model_repository_extension,
            port,
            grace_period=config.grace_seconds,
        )
        rest.config.host, rest.config.access_log = host, False
        rest.config.server_header = False
        rest.config.http = partial(
            Connection, connection_limit(config), config.body_seconds, Turns()
        )
        rest.config.ws = "none"
        rest.create_application()
        application.configure(self._predictor, config)
        self._http = _HttpServer(rest.config, self._drain, self._close_grpc)
        self._grpc: aio.Server | None = None
        self._grpc_closed: asyncio.Task[None] | None = None

    def start(self, models: list[Any]) -> None:
        """Serve until a signal arrives or the device fails.

        Raises:
            ConfigError: the port is in use, or cannot be opened.
        """
        with asyncio.Runner(loop_factory=self._http.config.get_loop_factory()) as runner:
            runner.run(self._run())
        failed = self.failure is not None and not isinstance(self.failure, GrocerError)
        if failed:
            log.error("stopped", exc_info=self.failure)
        # A thread that still uses torch when the interpreter exits would block or abort it.
        if failed or not self._predictor.batcher.join(_JOIN_SECONDS):
            logging.shutdown()
            os._exit(int(failed))

    async def _run(self) -> None:
        listener = listen(self._host, self.http_port)
        if self.enable_grpc:
            servicer = Servicer(
                self.dataplane, self.model_repository_extension, self._config.max_items
            )
            self._grpc = grpc_server(
                self._config,
                address(self._host, self.grpc_port),
                servicer,
                self._predictor.require_capacity,
            )
            await self._grpc.start()
        self._predictor.batcher.start()
        monitor = asyncio.create_task(self._monitor())
        port = listener.getsockname()[1]
        url = f"http://{address(self._host, port)}"
        log.info("live on %s", url, extra={"digest": self._predictor.bundle.digest})
        await self._http.serve([listener])
        monitor.cancel()
        if self._grpc_closed is not None:
            await self._grpc_closed
        self._predictor.stop()

    def _close_grpc(self) -> None:
        """Reject new gRPC requests, and let in-flight ones complete together with HTTP's."""
        if self._grpc is not None and self._grpc_closed is None:
            self._grpc_closed = asyncio.create_task(self._grpc.stop(self.grace_period))

    async def _monitor(self) -> None:
        """Log readiness, close slow connections, and treat a stall as a device failure."""
        logged, clock = False, asyncio.get_running_loop().time
        while True:
            enforce(self._http.server_state.connections, clock())
            if self._predictor.ready and not logged:
                logged = True
                log.info("ready", extra={"digest": self._predictor.bundle.digest})
            if self._predictor.batcher.stalled_seconds() > self._config.stall_seconds:
                self._predictor.fail(TimeoutError("tokenizing or a forward pass stalled"))
            await asyncio.sleep(0.25)

    def _fail(self, error: BaseException) -> None:
        """Stop after a failure; called on the event loop."""
        if self.failure is None:
            self.failure = error
            log.critical("model failed: %s", type(error).__name__)
            # Time for a liveness probe to see the failure, and for queued responses.
            asyncio.get_running_loop().call_later(1.0, self._http.end)

    def _drain(self, sig: int) -> None:
        """Report not ready, then stop; on SIGTERM, only after load balancers have noticed."""
        self._predictor.draining = True
        seconds = self._config.drain_seconds if sig == signal.SIGTERM else 0.0
        log.info("draining for %g s", seconds)
        asyncio.get_running_loop().call_later(seconds, self._http.end)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; 0 selects a free port.

    Raises:
        ConfigError: the port is in use, or cannot be opened.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # As gRPC does, `::` also accepts IPv4.
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno in errno.errorcode else str(error)
        raise ConfigError(
            f"cannot listen on {address(host, port)}: {reason}; choose another --port or --host"
        ) from error


def address(host: str, port: int) -> str:
    """Return host and port as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _HttpServer(uvicorn.Server):
    """uvicorn that drains on the first signal and stops on the second.

    Args:
        close: called when the port is closed, on the event loop.
    """

    def __init__(
        self, config: uvicorn.Config, drain: Callable[[int], None], close: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._drain, self._close, self._signalled = drain, close, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._signalled:
            self.end()
            return
        self._signalled = True
        asyncio.get_running_loop().call_soon_threadsafe(self._drain, sig)

    async def shutdown(self, sockets: Any = None) -> None:
        self._close()
        await super().shutdown(sockets)
        # Requests that were cancelled after the grace period are still answered.
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=1.0)
            await asyncio.sleep(0.1)

    def end(self) -> None:
        """Close the port, finish in-flight requests, and return from `serve`."""
        self.should_exit = True
