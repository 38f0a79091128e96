"""Answer /metrics on a port of its own, which then can be closed to the outside.

Its connections have the limits of the first port's, and are fewer, since their files are those of the workers' parent.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from serving.connection import Connection
from serving.guards import guarded
from serving.metrics import metrics
from serving.record import recorded
from serving.settings import Settings

CONNECTIONS = 64
STOP_SECONDS = 1  # what is still open then is closed


@contextmanager
def answer_metrics(settings: Settings, sock: socket.socket) -> Iterator[None]:
    """Answer GET /metrics on this socket, on a thread, until the block is left.

    The token and the allowed hosts hold here, too. It runs in the parent of the workers.
    """
    app = recorded(guarded(Starlette(routes=[Route("/metrics", metrics)]), settings), ())
    limits = settings.model_copy(update={"connections": CONNECTIONS})
    config = uvicorn.Config(
        app,
        http=cast(type[Connection], partial(Connection, limits)),
        loop="asyncio",
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=CONNECTIONS,  # so many are accepted before the next of them is counted
        timeout_keep_alive=settings.idle,  # type: ignore[arg-type]  # it takes fractions of a second, too
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([sock],), name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(2 * STOP_SECONDS)
