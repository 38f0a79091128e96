"""Answer /metrics on a port of its own, which then can be closed to the outside."""

import socket
import threading

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from serving.guards import guarded
from serving.metrics import metrics
from serving.record import recorded
from serving.settings import Settings

CONNECTIONS = 64


def answer_metrics(settings: Settings, sock: socket.socket) -> None:
    """Answer GET /metrics on this socket, on a thread, until the process ends.

    The token and the allowed hosts hold here, too. With several workers this runs in their parent.
    """
    app = recorded(guarded(Starlette(routes=[Route("/metrics", metrics)]), settings), ())
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
    )
    threading.Thread(target=uvicorn.Server(config).run, args=([sock],), name="metrics", daemon=True).start()
