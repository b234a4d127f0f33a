"""Traces: exported only if an endpoint is set, continue the caller's trace, without names."""

from __future__ import annotations

import gzip
from threading import Event
from typing import Any, ClassVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from grocer.release.bundle import LoadedBundle
from serving.predictor import tracing
from tests.fixtures.http_server import Handler, Serve
from tests.fixtures.predictor_process import PREDICT, Start

CALLER = "0af7651916cd43dd8448eb211c80319c"


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
    response = server.post(PREDICT, json=body, headers=headers)
    assert response.status_code == 200
    assert Collector.both.wait(20)
    spans = {span.name: span for span in Collector.spans}
    assert set(spans) == {"POST predict", "score"}
    assert {span.trace_id.hex() for span in spans.values()} == {CALLER}
    request, scoring = spans["POST predict"], spans["score"]
    assert scoring.parent_span_id == request.span_id
    assert (request.kind, scoring.kind) == (request.SPAN_KIND_SERVER, request.SPAN_KIND_INTERNAL)
    attributes = {each.key: each.value.string_value for each in request.attributes}
    assert attributes["http.route"] == PREDICT
    assert "secret" not in str(Collector.spans)
