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

from grocer.errors import ConfigError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def configure() -> None:
    """Send spans to the endpoint that the environment names, if it names one.

    Raises:
        ConfigError: it does, but OpenTelemetry's SDK is not installed.
    """
    named = [name for name in _ENDPOINTS if os.environ.get(name)]
    if not named:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"{named[0]} is set, but there is no SDK to send traces with; install "
            "opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http, or unset it"
        ) from error
    service = os.environ.get("OTEL_SERVICE_NAME", "grocer")
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def span(
    name: str, attributes: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Iterator[trace.Span]:
    """A span around the block; with `headers`, a server's, below the caller's span."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        yield trace.INVALID_SPAN
        return
    tracer = provider.get_tracer("grocer")
    caller = None if headers is None else propagate.extract(headers)
    kind = trace.SpanKind.INTERNAL if headers is None else trace.SpanKind.SERVER
    # A refusal is an answer: only its status belongs into the span.
    with tracer.start_as_current_span(
        name, caller, kind, dict(attributes), record_exception=False, set_status_on_exception=False
    ) as current:
        yield current
