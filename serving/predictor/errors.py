"""A request that gets no answer, and why."""

from __future__ import annotations

from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException

_GRPC = {
    400: StatusCode.INVALID_ARGUMENT,
    404: StatusCode.NOT_FOUND,
    413: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


class Refusal(GrpcException):
    """A status and one sentence that says what was wrong and where, without the input itself.

    Over gRPC the interceptor of KServe's server turns it into the status of the same meaning.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message, _GRPC.get(status, StatusCode.INVALID_ARGUMENT))
        self.status, self.message, self.retry_after = status, message, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that go with it."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
