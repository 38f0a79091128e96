"""Make the ASGI application of the server: load the release, and add the routes and the answers to errors."""

import gc
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from onnx_release.core.errors import ReleaseError, ReleaseFolderError
from onnx_release.core.hardware import available_cores
from onnx_release.core.spec import Spec, concrete_shape, of_batch
from onnx_release.data.model_data import ModelData, load_data
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.runtime.providers import CPU
from onnx_release.runtime.release import MANIFEST, Release, open_release
from serving import metrics
from serving.decoders import Decoders
from serving.docs import docs_router
from serving.engine import Engine
from serving.errors import Problem, answer_or_error, error_response
from serving.grpc_server import answering_grpc
from serving.guards import guarded
from serving.page import page_router
from serving.predict import predict_router, takes_uploads
from serving.record import Observer, recorded
from serving.request_log import log_request
from serving.rows import find_rows
from serving.settings import Settings
from serving.spans import Spans
from serving.v2 import v2_router

# Rows of a call, unless a setting says otherwise: docs/serving.md and docs/gpu.md say what that does.
CPU_BATCH, GPU_BATCH = 4, 8
# The threads have this long to stop; serve() has already waited for the requests.
STOP_SECONDS = 1.0

log = logging.getLogger("serving")


class Application(FastAPI):
    """FastAPI, except that it answers HEAD, and that requests to `first`, a POST route, skip middleware and router.

    The route's function takes the request and gives the response. Middleware and router would only add time on the
    event loop, which the server is short of under load. HEAD is answered as GET is; uvicorn leaves out the content.
    """

    first: APIRoute
    entrance: ASGIApp | None = None  # what every request comes through, before `respond`

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.entrance is not None and scope["type"] == "http":
            await self.entrance(scope, receive, send)
        else:
            await self.respond(scope, receive, send)

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            asked = {**scope, "method": "GET"}
            try:
                await super().__call__(asked, receive, send)
            finally:
                scope["route"] = asked.get("route")  # for the metrics
            return
        if scope["type"] != "http" or scope["path"] != self.first.path or scope["method"] != "POST":
            await super().__call__(scope, receive, send)
            return
        scope["app"], scope["route"] = self, self.first
        request = Request(scope, receive)
        response = await answer_or_error(self.first.endpoint, request)
        await response(scope, receive, send)


def create_app(settings: Settings) -> FastAPI:
    """Make the application for the release in the current folder. Raises ReleaseFolderError if it is not whole."""
    release = open_release(Path())
    data = load_data(release.manifest.model)

    spans = Spans(settings.otlp_endpoint, release.manifest.model) if settings.otlp_endpoint else None
    app = Application(
        title=release.manifest.model,
        description=f"{release.manifest.model}, {release.manifest.variant}: {release.spec.task} with ONNX Runtime.",
        version="1",
        responses={"default": {"model": Problem, "description": "any other error"}},
        lifespan=partial(running, spans),
        docs_url=None,  # FastAPI's own pages load their scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lead to the host that the client names
        openapi_url="/openapi.json" if settings.docs else None,
    )
    app.state.release, app.state.settings, app.state.ready = release, settings, False
    app.state.takes_uploads = takes_uploads(release, data)
    add_routes(app, data)
    explain_errors(app)
    app.state.observers = observers(settings, spans)
    app.entrance = recorded(guarded(app.respond, settings), app.state.observers)
    return app


@asynccontextmanager
async def running(spans: Spans | None, app: FastAPI) -> AsyncIterator[None]:
    """Run the engine, the decoders and gRPC of the application for as long as it serves."""
    release, settings = app.state.release, app.state.settings
    with ThreadPoolExecutor(1) as pool:  # both take a while, on a core each
        decoders = pool.submit(start_decoders, release, settings) if app.state.takes_uploads else None
        app.state.engine = start_engine(release, settings)
        app.state.decoders = decoders.result() if decoders else None
    # The collector then skips what stays for good, and finds early what requests leave behind.
    gc.collect()
    gc.freeze()
    gc.collect()  # resets the collector's counters
    async with answering_grpc(app):
        app.state.ready = True
        yield
    app.state.ready = False
    await app.state.engine.drain(STOP_SECONDS)
    if app.state.decoders:
        app.state.decoders.close()
    if spans:
        spans.close()


def add_routes(app: Application, data: ModelData) -> None:
    release, settings = app.state.release, app.state.settings
    uploads = predict_router(release, data)
    app.first = cast(APIRoute, uploads.routes[0])
    app.include_router(uploads)
    app.include_router(v2_router(release))
    if settings.metrics and settings.metrics_port is None:
        app.include_router(metrics.router)
    if settings.docs:
        app.include_router(docs_router(release.manifest.model))
    if settings.page:
        app.include_router(page_router(release, data, settings))


def observers(settings: Settings, spans: Spans | None) -> tuple[Observer, ...]:
    """Return what gets the record of each request after its answer."""
    found: list[Observer] = [spans.observe] if spans else []
    return (*found, log_request) if settings.log_requests else tuple(found)


def explain_errors(app: FastAPI) -> None:
    """Answer every error with `error_response`."""
    for kind in (ReleaseError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, error_response)


def start_engine(release: Release, settings: Settings) -> Engine:
    """Load the model, run it once, and start an engine for it. Raises GraphError or ProviderError if it does not run.

    On the CPU every thread runs the model by itself on its share of the cores: two calls at once on one core each are
    faster than two calls one after the other on two cores. On a GPU one call at a time takes all waiting items, filled
    up to one size.
    """
    cores, threads = own_cores(settings), thread_count(settings)
    model = OnnxModel(release.model, release.spec, release.runtime.model_copy(update=thread_settings(cores, threads)))
    on_cpu = model.provider == CPU
    rows = find_rows(release.spec, settings.max_batch or default_batch(release, on_cpu))
    for size in {1, rows.most} if on_cpu else {rows.most}:
        warm_up(model, release.spec, size)
    timed_on = timed_provider(release)
    if model.provider != timed_on or model.note:
        log.warning("released for %s, runs on %s%s", timed_on, model.provider, model.note and f": {model.note}")
    metrics.describe_model(release, model.provider, onnxruntime.__version__)
    engine = Engine(
        model.run,
        rows,
        threads=threads,
        gpu=not on_cpu,
        queue=settings.queue,
        observe=metrics.observe_call,
    )
    engine.jobs.observe_places = metrics.QUEUED.set
    return engine


def timed_provider(release: Release) -> str:
    """Return the provider of the release's timings. Raises ReleaseFolderError if the manifest does not name it."""
    try:
        return str(release.manifest.metrics["benchmark"]["provider"])
    except (KeyError, TypeError) as cause:
        raise ReleaseFolderError(f"{MANIFEST} has no metrics.benchmark.provider: fetch the release again") from cause


def start_decoders(release: Release, settings: Settings) -> Decoders:
    """Start a process that decodes for each thread of the engine. Raises DecoderError if one does not start."""
    return Decoders(release.manifest.model, settings, thread_count(settings))


def own_cores(settings: Settings) -> int:
    """Return this process's share of the cores."""
    return max(1, available_cores() // settings.workers)


def thread_count(settings: Settings) -> int:
    return settings.threads or own_cores(settings)


def default_batch(release: Release, on_cpu: bool) -> int:
    """Return the most rows of a call; 1 for int8_dynamic, whose ranges depend on all items of a call."""
    if not on_cpu:
        return GPU_BATCH
    return 1 if release.manifest.variant == "int8_dynamic" else CPU_BATCH


def warm_up(model: OnnxModel, spec: Spec, rows: int) -> None:
    """Run the model at the size that requests will have: the first call allocates, plans, and fails if it must."""
    sizes = of_batch(spec, rows)
    model.run({tensor.name: np.zeros(concrete_shape(tensor, sizes), tensor.dtype) for tensor in spec.inputs})


def thread_settings(cores: int, threads: int) -> dict[str, object]:
    """Return the settings that give each of `threads` parallel calls its share of the cores.

    With several calls, waiting threads sleep and leave their cores to the others.
    """
    return {"intra_threads": max(1, cores // threads), "spinning": threads == 1}
