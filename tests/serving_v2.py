"""A server of the Open Inference Protocol for one graph, in a thread of the test, on a free port."""

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from onnx_release.errors import ReleaseError
from onnx_release.release import Release
from onnx_release.spec import Spec
from serving.app import explain
from serving.connection import Connection
from serving.engine import Engine
from serving.protocol import max_batch
from serving.settings import Settings
from serving.v2 import v2_router

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@contextmanager
def serving(run: Run, spec: Spec, name: str = "tiny", **settings: Any) -> Iterator[tuple[str, FastAPI]]:
    """HOST:PORT and the application, whose model `name` is `run`; of a release it has what the protocol needs."""
    limits = Settings(**settings)
    release = cast(Release, SimpleNamespace(spec=spec, manifest=SimpleNamespace(model=name)))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = Engine(
            run,
            max_batch=max_batch(spec, limits.max_batch),
            threads=2,
            gpu=False,
            queue=limits.queue,
            observe=lambda rows, seconds: None,
        )
        app.state.ready = True
        yield
        assert await app.state.engine.drain(30)

    app = FastAPI(version="1", lifespan=lifespan)
    app.state.release, app.state.settings, app.state.ready = release, limits, False
    app.include_router(v2_router(release))
    for kind in (ReleaseError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, explain)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # clients that are early wait in its backlog
        http = cast(type[Connection], partial(Connection, limits))
        server = uvicorn.Server(uvicorn.Config(app, http=http, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", app
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
