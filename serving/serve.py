"""Serve until SIGTERM: listen on the port, and run the workers that answer."""

import asyncio
import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from onnx_release.core.command import describe_refusal
from onnx_release.core.errors import ReleaseError
from serving.settings import Settings
from serving.supervisor import BACKLOG, Supervisor

if TYPE_CHECKING:
    from fastapi import FastAPI

LINGERING = 256  # connections over the limit that are being closed at once; more are closed without an answer
OTHER_FILES = 256  # open files besides connections: libraries, the model, pipes


class StartError(ReleaseError):
    """The server cannot start: the address, the machine's limits, or another uvicorn than it was made for."""


@contextmanager
def loading() -> Iterator[None]:
    """Raise StartError for a package or a part of the release that the block's imports lack."""
    try:
        yield
    except (ImportError, SyntaxError) as cause:
        raise StartError(
            f"the server cannot be loaded ({cause}): run `pip install -r requirements.txt`, or fetch the release again"
        ) from cause


def release_app(settings: Settings) -> "FastAPI":
    """Make the application for the release in the current folder.

    It is imported here, since the parent of the workers does not need it. Raises StartError for files that cannot be
    read, and what create_app raises.
    """
    with loading():
        from serving.app import create_app
    try:
        return create_app(settings)
    except OSError as cause:
        # Without a path it is what opened, and then could not be read.
        reason = describe_refusal(cause) or f"a file of the release cannot be read ({cause.strerror}): fetch it again"
        raise StartError(reason) from cause
    except RecursionError as cause:
        raise StartError("a file of the release is nested too deeply: fetch the release again") from cause


def serve(settings: Settings, app: str = "serving.serve:release_app") -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code. SIGHUP loads the release that is now in the folder.

    `app` names a function, as MODULE:FUNCTION, that makes a Starlette application from the settings. Its `state.ready`
    is set to False when the server begins to stop. Raises StartError; if the application does not start, its worker
    prints the error.
    """
    raise_file_limit(settings.connections)
    own_port = settings.metrics and settings.metrics_port is not None
    if own_port:
        # Late, since few need it; and before the variable below is set, since this process counts nothing.
        from serving.metrics_port import answer_metrics
    # The metrics of the workers meet in this folder: prometheus_client reads the variable when it is imported.
    shared = settings.workers > 1 or own_port
    together = tempfile.TemporaryDirectory(prefix="serving-") if shared else nullcontext()
    with ExitStack() as stack:
        sock, folder = stack.enter_context(listen(settings)), stack.enter_context(together)
        if folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            stack.callback(os.environ.pop, "PROMETHEUS_MULTIPROC_DIR")
        if own_port:
            metrics_sock = stack.enter_context(listen(settings, "metrics_port"))
            stack.enter_context(answer_metrics(settings, metrics_sock))
            announce(metrics_sock, "metrics", "/metrics")
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


def listen(settings: Settings, option: Literal["port", "metrics_port"] = "port") -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    port: int = getattr(settings, option)
    try:
        return socket.create_server((settings.host, port), family=family, backlog=BACKLOG)
    except OSError as cause:
        where = f"{settings.host}:{port}"
        # The reason without what Python adds to it; hosts that cannot be resolved have codes below 0.
        reason = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else str(cause)
        choice = f"--{option.replace('_', '-')} or --host"
        raise StartError(f"cannot listen on {where} ({reason}): choose another {choice}") from cause


def announce(sock: socket.socket, what: str = "serving", path: str = "") -> None:
    host, port = sock.getsockname()[:2]
    print(f"{what} on http://{f'[{host}]' if ':' in host else host}:{port}{path}", flush=True)
