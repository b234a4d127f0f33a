"""The error that a client receives instead of a prediction."""

from __future__ import annotations

from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException

_GRPC_STATUS = {
    400: StatusCode.INVALID_ARGUMENT,
    404: StatusCode.NOT_FOUND,
    413: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


class RequestError(GrpcException):
    """An HTTP status and a one-line message, which never contains the client's input.

    Over gRPC, the exception interceptor of KServe's server sends the equivalent gRPC status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        retry_after: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message, _GRPC_STATUS.get(status, StatusCode.INVALID_ARGUMENT))
        self.status, self.message, self.retry_after = status, message, retry_after
        self.allow = allow

    @property
    def headers(self) -> dict[str, str]:
        """Response headers: `retry-after`, in seconds, if a retry can succeed; `allow`, of 405."""
        headers = {"retry-after": self.retry_after, "allow": self.allow}
        return {name: str(value) for name, value in headers.items() if value is not None}


INTERNAL_ERROR = RequestError(500, "internal error; see the server log")
