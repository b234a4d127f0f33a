"""OpenTelemetry traces: one span a request and one for its scoring, where an endpoint is set.

Configured as every OpenTelemetry program is, by `OTEL_EXPORTER_OTLP_ENDPOINT` and its kin; a
caller's `traceparent` is continued. Spans carry counts and statuses, never a product's name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import propagate, trace

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

# Not the process's provider: FastAPI would take that one to trace each probe and each of its steps.
_provider: trace.TracerProvider | None = None


def configure() -> None:
    """Send spans to the endpoint that the environment names, if it names one."""
    global _provider
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    service = os.environ.get("OTEL_SERVICE_NAME", "grocer")
    made = TracerProvider(resource=Resource.create({"service.name": service}))
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _provider = made


@contextmanager
def span(
    name: str, attributes: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Iterator[trace.Span]:
    """A span around the block; with `headers`, a server's, below the caller's span."""
    if _provider is None:
        yield trace.INVALID_SPAN
        return
    tracer = _provider.get_tracer("grocer")
    caller = None if headers is None else propagate.extract(headers)
    kind = trace.SpanKind.INTERNAL if headers is None else trace.SpanKind.SERVER
    # A refusal is an answer: only its status belongs into the span.
    with tracer.start_as_current_span(
        name, caller, kind, dict(attributes), record_exception=False, set_status_on_exception=False
    ) as current:
        yield current
