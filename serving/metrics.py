"""Answer GET /metrics for Prometheus: requests by path and status, and the calls of the model."""

import os

from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from serving import statistics

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
NO_ROUTE = "none"  # the path of requests that no route answered

REQUESTS = Counter("serving_requests_total", "Requests answered", ["path", "status"])
LATENCY = Histogram(
    "serving_request_seconds", "From the request's head to the answer's end", ["path"], buckets=SECONDS_BUCKETS
)
IN_PROGRESS = Gauge("serving_requests_in_progress", "Requests being served", multiprocess_mode="livesum")
CALLS = Histogram("serving_model_seconds", "Duration of a call of the model", buckets=SECONDS_BUCKETS)
BATCHES = Histogram("serving_batch_rows", "Rows of a call of the model", buckets=ROWS_BUCKETS)

router = APIRouter(tags=["operation"])


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
def metrics() -> Response:
    """Give the metrics of all processes that share the port."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def observe_request(path: str, status: int, seconds: float) -> None:
    """Count a request that the application has answered. `path` is the route's, not one that a client made up."""
    REQUESTS.labels(path, status).inc()
    LATENCY.labels(path).observe(seconds)


def observe_refusal(status: int) -> None:
    """Count a request or a connection that was refused before the application saw it."""
    REQUESTS.labels(NO_ROUTE, status).inc()


def observe_call(rows: int, seconds: float) -> None:
    """Count a call of the model."""
    statistics.observe_call(rows, seconds)
    CALLS.observe(seconds)
    BATCHES.observe(rows)
