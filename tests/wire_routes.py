"""The small application of tests/wire_app.py. Each route does one thing that a test can watch or wait for.

So no test has to sleep. It does not start while the file exists that WIRE_APP_FAILS names.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from onnx_release.core.errors import GraphError
from serving.body import parse_files, request_body
from serving.connection import gone
from serving.errors import BusyError, ClientGoneError, RequestError
from serving.memory import memory
from serving.metrics import metrics
from serving.settings import Settings

LARGE = 50_000_000  # bytes, more than a socket holds


def create_app(settings: Settings) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if Path(os.environ.get("WIRE_APP_FAILS", "/nowhere")).exists():
            raise GraphError("model.onnx does not load: export it again")
        yield

    async def process(request: Request) -> Response:
        return JSONResponse({"pid": os.getpid(), "metrics": os.environ.get("PROMETHEUS_MULTIPROC_DIR")})

    async def ready(request: Request) -> Response:
        return JSONResponse({}, 200 if app.state.ready else 503)

    async def files(request: Request) -> Response:
        async with request_body(request, settings) as body:
            uploads = parse_files(request.headers.get("content-type", ""), body, settings)
            return JSONResponse([[upload.name, len(upload.content)] for upload in uploads])

    async def body_length(request: Request) -> Response:
        async with request_body(request, settings) as body:
            return JSONResponse(len(body))

    async def plain_length(request: Request) -> Response:
        from serving.content import plain_body  # late, since it loads ONNX Runtime

        async with request_body(request, settings) as body, plain_body(request, body, settings) as plain:
            return JSONResponse(len(plain))

    async def large(request: Request) -> Response:
        return Response(bytes(LARGE))

    async def until_left(request: Request) -> Response:
        """Work on a request until its client goes away."""
        async with request_body(request, settings):
            await gone(request)
            app.state.left += 1
        return JSONResponse({})

    async def until_stopping(request: Request) -> Response:
        async with request_body(request, settings):
            while app.state.ready:
                await asyncio.sleep(0.002)
        return JSONResponse({})

    async def prometheus(request: Request) -> Response:
        return metrics(request)

    def count() -> dict[str, int]:
        return {"left": app.state.left, "memory": memory.used}

    async def counts(request: Request) -> Response:
        return JSONResponse(count())

    async def until_count(request: Request) -> Response:
        while count()[request.path_params["name"]] != request.path_params["count"]:
            await asyncio.sleep(0.002)
        return JSONResponse({})

    async def refused(request: Request, error: Any) -> Response:
        return JSONResponse({"error": str(error)}, error.status)

    async def busy(request: Request, error: Any) -> Response:
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": str(error.seconds)})

    async def client_gone(request: Request, error: Any) -> Response:
        return JSONResponse({}, 499)

    app = Starlette(
        routes=[
            Route("/process", process),
            Route("/v2/health/ready", ready),
            Route("/files", files, methods=["POST"]),
            Route("/body", body_length, methods=["POST"]),
            Route("/plain", plain_length, methods=["POST"]),
            Route("/large", large),
            Route("/until/left", until_left, methods=["POST"]),
            Route("/until/stopping", until_stopping, methods=["POST"]),
            Route("/counts", counts),
            Route("/metrics", prometheus),
            Route("/until/{name}/{count:int}", until_count),
        ],
        exception_handlers={RequestError: refused, BusyError: busy, ClientGoneError: client_gone},
        lifespan=lifespan,
    )
    app.state.ready, app.state.left = True, 0
    return app
