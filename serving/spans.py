"""Send a span of each request to an OpenTelemetry collector, with spans for what its items waited for and cost.

The packages are not among a release's requirements: INSTALL adds them. A span is made after the answer, from the times
in the request's record, so it costs the request nothing. The parent is the client's `traceparent`. The names of the
attributes are OpenTelemetry's: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

import os
import time

from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from starlette.types import Scope

from onnx_release.core.errors import ParameterError
from serving.record import RequestRecord

INSTALL = "pip install opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2"
STOP_SECONDS = 5.0  # a collector that does not answer delays the end of the server by this much


class Spans:
    """What makes the spans of requests, and sends them on a thread of its own."""

    def __init__(self, endpoint: str, service: str) -> None:
        """Begin to send spans to the collector at `endpoint`. Raises ParameterError if packages are missing.

        `service` is the name of the service, unless OTEL_SERVICE_NAME is set.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as cause:
            raise ParameterError(
                f"--otlp-endpoint needs packages that are not installed ({cause}): {INSTALL}"
            ) from cause
        name = os.environ.get("OTEL_SERVICE_NAME", service)
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=STOP_SECONDS)
        self.provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
        self.provider.add_span_processor(BatchSpanProcessor(exporter))
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
            extract({"traceparent": record.traceparent} if record.traceparent else {}),
            SpanKind.SERVER,
            attributes,
            start_time=epoch + round(record.start * 1e9),
        )
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        context = set_span_in_context(span)
        for item in record.items:
            for name, start, end in (
                ("queue", item.queued, item.began or now),
                ("prepare", item.began, item.prepared),
                ("model", item.called, item.called + item.run),
            ):
                if start and end:
                    times = [epoch + round(moment * 1e9) for moment in (start, end)]
                    self.tracer.start_span(name, context, start_time=times[0]).end(times[1])
        span.end(epoch + round(now * 1e9))

    def close(self) -> None:
        """Send what is left."""
        self.provider.shutdown()
