"""Answer GET /metrics for Prometheus: requests by path and status, where their time goes, and which model answers."""

import os
import time
from asyncio import Future
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.types import Scope

from onnx_release.core.paths import MODEL_FILE
from onnx_release.runtime.release import Release
from serving import statistics
from serving.record import Finish, Item, Prepare, RequestRecord

if TYPE_CHECKING:  # the process that only answers /metrics does without ONNX Runtime
    from serving.engine import Engine, Job

# The workers' metrics are in the folder that this variable names; prometheus_client reads it when it is imported.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
NO_ROUTE = "none"  # the path of requests that no route answered

REQUESTS = Counter("serving_requests_total", "Requests answered", ["path", "status"])
LATENCY = Histogram(
    "serving_request_seconds", "From the request's head to the answer's end", ["path"], buckets=SECONDS_BUCKETS
)
IN_PROGRESS = Gauge("serving_requests_in_progress", "Requests being served", multiprocess_mode="livesum")
QUEUED = Gauge("serving_queue_items", "Rows that wait or run; each upload is one", multiprocess_mode="livesum")
WAITS = Histogram(
    "serving_queue_seconds", "Time in which an item waits for a thread or a call", buckets=SECONDS_BUCKETS
)
PREPARATIONS = Histogram(
    "serving_prepare_seconds", "Time to make an item's inputs of an upload or of tensors", buckets=SECONDS_BUCKETS
)
DECODES = Histogram("serving_decode_seconds", "Time to decode an upload", buckets=SECONDS_BUCKETS)
PREPROCESSES = Histogram("serving_preprocess_seconds", "Time to preprocess an upload", buckets=SECONDS_BUCKETS)
CALLS = Histogram("serving_model_seconds", "Duration of a call of the model", buckets=SECONDS_BUCKETS)
BATCHES = Histogram("serving_batch_rows", "Rows of a call of the model", buckets=ROWS_BUCKETS)
MODEL = Gauge(
    "serving_model_info",
    "The release that answers; its value is 1",
    ["model", "variant", "sha256", "revision", "provider", "onnxruntime"],
    multiprocess_mode="livemax",
)

router = APIRouter(tags=["operation"])


@router.get("/metrics", summary="Metrics for Prometheus, also as OpenMetrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Give the metrics of all processes that share the port, in the format that the client accepts."""
    try:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
    except (TypeError, ValueError):  # a version that is no number, or an unknown way to escape
        encode, content_type = choose_encoder("")
    return Response(encode(registry()), headers={"Content-Type": content_type})


def registry() -> CollectorRegistry:
    """Return what has the metrics of this process, or of all workers."""
    if FOLDER not in os.environ:
        return REGISTRY
    found = CollectorRegistry()
    MultiProcessCollector(found)  # type: ignore[no-untyped-call]
    found.register(WorkerProcesses(Path(os.environ[FOLDER])))
    PlatformCollector(found)
    return found


class WorkerProcesses(Collector):
    """CPU, memory and open files of each worker, with its `pid`: a sum would fall when a worker ends.

    The workers are those that have a file for IN_PROGRESS in the folder of the metrics.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for path in sorted(self.folder.glob("gauge_livesum_*.db")):
            pid = path.stem.rpartition("_")[2]
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                whole = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                for sample in metric.samples:
                    whole.add_sample(sample.name, {"pid": pid}, sample.value)
        return found.values()


def describe_model(release: Release, provider: str, runtime_version: str) -> None:
    """Say which release this process answers with, and which provider of which ONNX Runtime runs it."""
    manifest = release.manifest
    MODEL.labels(
        manifest.model,
        manifest.variant,
        manifest.files[MODEL_FILE].sha256,
        manifest.git.revision if manifest.git else "",
        provider,
        runtime_version,
    ).set(1)


@contextmanager
def measured(items: list[Item]) -> Iterator[None]:
    """Count where the time of a request's items went, once the engine no longer has them."""
    try:
        yield
    finally:
        for item in items:
            WAITS.observe(item.waited)
            if item.prepared:
                PREPARATIONS.observe(item.prepared - item.began)


async def run_recorded(
    engine: "Engine", record: RequestRecord, work: Iterable[tuple[Prepare, Finish]], deadline: float, gone: Future[None]
) -> "list[Job]":
    """Run the jobs of a request as `Engine.submit` does, and keep their times in its record and in the metrics."""
    timed = [record.timed(prepare, finish) for prepare, finish in work]
    with measured(record.items):
        jobs = await engine.submit(timed, deadline, gone)
    record.note_calls(jobs)
    return jobs


@contextmanager
def counted_request(scope: Scope, status: Callable[[], int]) -> Iterator[None]:
    """Count a request that the application answers in the block; `status` gives that of the answer, or 0."""
    start = time.perf_counter()
    with IN_PROGRESS.track_inprogress():
        try:
            yield
        finally:
            path = getattr(scope.get("route"), "path", NO_ROUTE)  # not one that a client made up
            REQUESTS.labels(path, status() or 500).inc()
            LATENCY.labels(path).observe(time.perf_counter() - start)


def observe_upload(decode: float, preprocess: float) -> None:
    """Count the seconds that the two steps took for an upload that could be read."""
    DECODES.observe(decode)
    PREPROCESSES.observe(preprocess)


def observe_refusal(status: int) -> None:
    """Count a request or a connection that was refused before the application saw it."""
    REQUESTS.labels(NO_ROUTE, status).inc()


def observe_call(rows: int, seconds: float) -> None:
    """Count a call of the model."""
    statistics.observe_call(rows, seconds)
    CALLS.observe(seconds)
    BATCHES.observe(rows)
