"""Traces: sent only where an endpoint is set, below the caller's span, without names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry import trace

from grocer.errors import ConfigError
from serving import tracing

CALLER = "0af7651916cd43dd8448eb211c80319c"


class Tracer:
    """Remembers the spans that were begun."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, trace.SpanKind, dict[str, object]]] = []

    def get_tracer(self, name: str) -> Tracer:
        return self

    @contextmanager
    def start_as_current_span(
        self, name: str, context: object, kind: trace.SpanKind, attributes: dict, **_: object
    ) -> Iterator[trace.Span]:
        caller = trace.get_current_span(context).get_span_context().trace_id
        self.spans.append((name, f"{caller:032x}", kind, attributes))
        yield trace.INVALID_SPAN


def test_a_request_continues_its_callers_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = Tracer()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracer)
    headers = {"traceparent": f"00-{CALLER}-b7ad6b7169203331-01"}
    with tracing.span("POST predict", {"http.route": "/x"}, headers), tracing.span("score", {}):
        pass
    first, second = tracer.spans
    assert first == ("POST predict", CALLER, trace.SpanKind.SERVER, {"http.route": "/x"})
    assert (second[0], second[2]) == ("score", trace.SpanKind.INTERNAL)


def test_without_a_provider_a_span_costs_nothing_and_works() -> None:
    with tracing.span("score", {"grocer.items": 1}) as span:
        span.set_attribute("more", 1)
        assert not span.is_recording()


def test_an_endpoint_without_the_sdk_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    tracing.configure()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match="_ENDPOINT is set, but there is no SDK"):
        tracing.configure()
