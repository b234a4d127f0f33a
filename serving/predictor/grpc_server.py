"""KServe's gRPC service, with admission before a message is decoded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc import aio
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from kserve.protocol.grpc.servicer import InferenceServicer

from grocer.config.deployment import ServingConfig
from grocer.errors import ConfigError
from serving.predictor.errors import RequestError

_MAX_REQUESTS = 64
"""Maximum in-flight requests: each may hold a message of maximum size."""
_IDLE_MS = 60_000
_MAX_PARAMETERS = 16


class Servicer(InferenceServicer):  # type: ignore[misc]
    """KServe's service; messages with too many parts are not converted, which takes seconds."""

    def __init__(self, data_plane: Any, repository: Any, max_items: int) -> None:
        super().__init__(data_plane, repository)
        self._max_items = max_items

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        if len(request.inputs) > 1 or len(request.raw_input_contents) > 1:
            raise RequestError(400, "inputs: expected one tensor")
        parts = [request.outputs, request.parameters]
        parts += [each.parameters for each in (*request.inputs, *request.outputs[:_MAX_PARAMETERS])]
        if max(map(len, parts)) > _MAX_PARAMETERS:
            raise RequestError(400, f"at most {_MAX_PARAMETERS} outputs and parameters")
        for tensor in request.inputs:
            values = [tensor.shape, *(value for _, value in tensor.contents.ListFields())]
            if max(map(len, values)) > self._max_items:
                raise RequestError(400, f"inputs[0]: at most {self._max_items} items")
        return await super().ModelInfer(request, context)


def grpc_server(
    config: ServingConfig, address: str, servicer: Servicer, admit: Callable[[], None]
) -> aio.Server:
    """Return a server that is not started.

    Args:
        address: host and port to listen on.
        admit: raises a RequestError if the server cannot accept another prediction.

    Raises:
        ConfigError: the port is in use, or cannot be opened.
    """
    server = aio.server(
        interceptors=(_Admission(admit), ExceptionToStatusInterceptor()),
        options=[
            ("grpc.max_send_message_length", config.max_body_bytes),
            ("grpc.max_receive_message_length", config.max_body_bytes),
            ("grpc.max_connection_idle_ms", _IDLE_MS),
            ("grpc.server_handshake_timeout_ms", round(1000 * config.body_seconds)),
        ],
        maximum_concurrent_rpcs=_MAX_REQUESTS,
    )
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {address}; choose another --grpc-port") from error
    return server


class _Admission(aio.ServerInterceptor):  # type: ignore[misc]
    """Rejects predictions that would be rejected after decoding."""

    def __init__(self, admit: Callable[[], None]) -> None:
        self._admit = admit

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        if handler_call_details.method.endswith("/ModelInfer"):
            try:
                self._admit()
            except RequestError as error:
                return _rejection(error)
        return await continuation(handler_call_details)


def _rejection(error: RequestError) -> grpc.RpcMethodHandler:
    async def reject(_: bytes, context: Any) -> None:
        await context.abort(error.status_code, error.message)

    # Without a deserializer, the message is not decoded.
    return grpc.unary_unary_rpc_method_handler(reject)
