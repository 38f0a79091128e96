"""Send a span of each request to an OpenTelemetry collector, with spans for what its items waited for and cost.

The packages are not among a release's requirements: INSTALL adds them. A span is made after the answer, from the times
in the request's record, so it costs the request nothing. The parent is the client's `traceparent`. The names of the
attributes are OpenTelemetry's: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

import os
import time
from collections.abc import Iterator

from starlette.types import Scope

from serving.optional import optional_modules
from serving.record import RequestRecord

INSTALL = "pip install opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2"
STOP_SECONDS = 5.0  # a collector that does not answer delays the end of the server by this much


class Spans:
    """What makes the spans of requests, and sends them on a thread of its own."""

    def __init__(self, endpoint: str, service: str) -> None:
        """Begin to send spans to the collector at `endpoint`. Raises ParameterError if packages are missing.

        `service` is the name of the service, unless OTEL_SERVICE_NAME is set.
        """
        self.api, self.propagate, sdk, export, resources, otlp = optional_modules(
            "--otlp-endpoint",
            INSTALL,
            "opentelemetry.trace",
            "opentelemetry.propagate",
            "opentelemetry.sdk.trace",
            "opentelemetry.sdk.trace.export",
            "opentelemetry.sdk.resources",
            "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        )
        name = os.environ.get("OTEL_SERVICE_NAME", service)
        exporter = otlp.OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=STOP_SECONDS)
        self.provider = sdk.TracerProvider(resource=resources.Resource.create({"service.name": name}))
        self.provider.add_span_processor(export.BatchSpanProcessor(exporter))
        self.tracer = self.provider.get_tracer("serving")

    def observe(self, scope: Scope, record: RequestRecord) -> None:
        """Make the spans of a request that has been answered."""
        now = time.perf_counter()
        epoch = time.time_ns() - round(now * 1e9)
        route = getattr(scope.get("route"), "path", None)
        status = record.status or 500
        attributes = {
            "http.request.method": scope["method"],
            "url.path": scope["path"],
            "url.scheme": scope["scheme"],
            "http.response.status_code": status,
            "http.request.body.size": record.received,
            "http.response.body.size": record.sent,
            "request.id": record.id,
        }
        if route:
            attributes["http.route"] = route
        if scope.get("client"):
            attributes["client.address"] = scope["client"][0]
        span = self.tracer.start_span(
            f"{scope['method']} {route}" if route else scope["method"],
            self.propagate.extract({"traceparent": record.traceparent} if record.traceparent else {}),
            self.api.SpanKind.SERVER,
            attributes,
            start_time=epoch + round(record.start * 1e9),
        )
        if status >= 500:
            span.set_status(self.api.StatusCode.ERROR)
        context = self.api.set_span_in_context(span)
        for name, start, end in steps(record, now):
            step = self.tracer.start_span(name, context, start_time=epoch + round(start * 1e9))
            step.end(epoch + round(end * 1e9))
        span.end(epoch + round(now * 1e9))

    def close(self) -> None:
        """Send what is left."""
        self.provider.shutdown()


def steps(record: RequestRecord, now: float) -> Iterator[tuple[str, float, float]]:
    """Yield the name, the begin and the end of what happened to each item, by time.perf_counter()."""
    for item in record.items:
        yield "queue", item.queued, item.began or now
        if item.prepared:
            yield "prepare", item.began, item.prepared
        if item.called:
            yield "model", item.called, item.called + item.run
