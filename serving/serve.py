"""Serve until SIGTERM: listen on the port, and run the workers that answer."""

import asyncio
import os
import resource
import socket
import tempfile
from contextlib import nullcontext
from typing import TYPE_CHECKING

from onnx_release.core.errors import ReleaseError
from serving.settings import Settings
from serving.supervisor import BACKLOG, Supervisor

if TYPE_CHECKING:
    from fastapi import FastAPI

LINGERING = 256  # connections over the limit that are being closed at once; more are closed without an answer
OTHER_FILES = 256  # open files besides connections: libraries, the model, pipes


class StartError(ReleaseError):
    """The server cannot start: the address, the machine's limits, or another uvicorn than it was made for."""


def release_app(settings: Settings) -> "FastAPI":
    """Make the application for the release in the current folder.

    It is imported here, since the parent of the workers does not need it.
    """
    from serving.app import create_app

    return create_app(settings)


def serve(settings: Settings, app: str = "serving.serve:release_app") -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code. SIGHUP loads the release that is now in the folder.

    `app` names a function, as MODULE:FUNCTION, that makes a Starlette application from the settings. Its `state.ready`
    is set to False when the server begins to stop. Raises StartError; if the application does not start, its worker
    prints the error.
    """
    raise_file_limit(settings.connections)
    # The metrics of several workers meet in this folder: prometheus_client reads the variable when it is imported.
    together = tempfile.TemporaryDirectory(prefix="serving-") if settings.workers > 1 else nullcontext()
    with listen(settings) as sock, together as folder:
        if folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        return asyncio.run(Supervisor(settings, app, sock, lambda: announce(sock)).run())


def raise_file_limit(connections: int) -> None:
    """Let this process, and the workers that it starts, open as many files as its connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + LINGERING + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        possible = hard - LINGERING - OTHER_FILES
        hint = f" or pass --connections {possible}" if possible > 0 else ""
        raise StartError(
            f"{connections} connections need {needed} open files, and {hard} is the limit: raise it (ulimit -Hn){hint}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as cause:
        where = f"{settings.host}:{settings.port}"
        # The reason without what Python adds to it; hosts that cannot be resolved have codes below 0.
        reason = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else str(cause)
        raise StartError(f"cannot listen on {where} ({reason}): choose another --port or --host") from cause


def announce(sock: socket.socket) -> None:
    host, port = sock.getsockname()[:2]
    print(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
