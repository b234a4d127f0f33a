"""Traces: exported only if an endpoint is set, continue the caller's trace, without names."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any, ClassVar

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from grocer.release.bundle import LoadedBundle
from serving.predictor import tracing
from tests.fixtures.http_server import Handler, Serve
from tests.fixtures.predictor_process import Start

CALLER = "0af7651916cd43dd8448eb211c80319c"


class Tracer:
    """Records spans."""

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


def test_request_continues_the_trace_of_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = Tracer()
    monkeypatch.setattr(tracing, "_provider", tracer)
    headers = {"traceparent": f"00-{CALLER}-b7ad6b7169203331-01"}
    with tracing.span("POST predict", {"http.route": "/x"}, headers), tracing.span("score", {}):
        pass
    first, second = tracer.spans
    assert first == ("POST predict", CALLER, trace.SpanKind.SERVER, {"http.route": "/x"})
    assert (second[0], second[2]) == ("score", trace.SpanKind.INTERNAL)


def test_span_without_a_provider_is_not_recording() -> None:
    with tracing.span("score", {"grocer.items": 1}) as span:
        span.set_attribute("more", 1)
        assert not span.is_recording()


class Collector(Handler):
    """An OpenTelemetry collector over HTTP that keeps the spans."""

    spans: ClassVar[list[Any]] = []
    both: ClassVar[Event] = Event()

    def do_POST(self) -> None:
        body = self.read()
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        self.reply(200)
        if len(self.spans) >= 2:
            self.both.set()


def test_collector_receives_the_spans_of_a_request_without_product_names(
    start_server: Start, serve: Serve, stub_bundle: LoadedBundle
) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": serve(Collector), "OTEL_BSP_SCHEDULE_DELAY": "50"}
    server = start_server(stub_bundle, environment=environment).wait_until_ready()
    headers = {"traceparent": f"00-{CALLER}-b7ad6b7169203331-01"}
    body = {"instances": ["secret cheese"]}
    response = server.post("/v1/models/grocer:predict", json=body, headers=headers)
    assert response.status_code == 200
    assert Collector.both.wait(20)
    spans = {span.name: span for span in Collector.spans}
    assert set(spans) == {"POST predict", "score"}
    assert {span.trace_id.hex() for span in spans.values()} == {CALLER}
    assert spans["score"].parent_span_id == spans["POST predict"].span_id
    assert "secret" not in str(Collector.spans)
