"""A server of the Open Inference Protocol for one graph, in a thread of the test, on a free port."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from fastapi import FastAPI

from onnx_release.core.spec import Spec
from onnx_release.runtime.release import Release
from serving.app import explain_errors
from serving.connection import Connection
from serving.engine import Engine
from serving.grpc_server import answering_grpc
from serving.metrics import observe_call
from serving.rows import find_rows
from serving.settings import Settings
from serving.v2 import v2_router
from tests.served import in_thread

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@contextmanager
def serving(run: Run, spec: Spec, name: str = "tiny", **settings: Any) -> Iterator[tuple[str, FastAPI]]:
    """HOST:PORT and the application, whose model `name` is `run`; of a release it has what the protocol needs."""
    limits = Settings(**settings)
    release = cast(Release, SimpleNamespace(spec=spec, manifest=SimpleNamespace(model=name)))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = Engine(
            lambda inputs, options: run(inputs),
            find_rows(spec, limits.max_batch or 4),
            threads=2,
            gpu=False,
            queue=limits.queue,
            observe=observe_call,
        )
        async with answering_grpc(app):
            app.state.ready = True
            yield
        assert await app.state.engine.drain(30)

    app = FastAPI(version="1", lifespan=lifespan)
    app.state.release, app.state.settings, app.state.ready = release, limits, False
    app.state.observers = ()
    app.include_router(v2_router(release))
    explain_errors(app)
    with in_thread(app, http=cast(type[Connection], partial(Connection, limits))) as port:
        yield f"127.0.0.1:{port}", app
