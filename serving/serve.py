"""Serve until SIGTERM: listen on the port, and run the workers that answer."""

import asyncio
import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Literal

from onnx_release.core.command import describe_refusal
from onnx_release.core.errors import ReleaseError
from serving.settings import Settings
from serving.supervisor import BACKLOG, Supervisor

if TYPE_CHECKING:
    from fastapi import FastAPI

LINGERING = 256  # connections over the limit that are being closed at once; more are closed without an answer
OTHER_FILES = 256  # open files besides connections: libraries, the model, pipes

PortOption = Literal["port", "metrics_port", "grpc_port"]


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
    with ExitStack() as stack:
        sock = stack.enter_context(listen(settings))
        # The metrics of all workers meet in this folder, those of workers that have ended included: prometheus_client
        # reads the variable when it is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(temporary_folder())
        stack.callback(os.environ.pop, "PROMETHEUS_MULTIPROC_DIR")
        if own_port:
            metrics_sock = stack.enter_context(listen(settings, "metrics_port"))
            stack.enter_context(answer_metrics(settings, metrics_sock))
            announce(metrics_sock, "metrics", "/metrics")
        if settings.grpc_port is not None:
            grpc_sock = stack.enter_context(hold_grpc_port(settings))
            settings = settings.model_copy(update={"grpc_port": grpc_sock.getsockname()[1]})
        return asyncio.run(Supervisor(settings, app, sock, lambda: announce_all(settings, sock)).run())


@contextmanager
def temporary_folder() -> Iterator[str]:
    """Make a folder that exists during the block. Raises StartError if there is no place for one."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="serving-"))
        except OSError as cause:
            raise StartError(f"no temporary folder can be made ({cause.strerror}): set TMPDIR to a folder") from cause
        yield folder


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


def listen(settings: Settings, option: PortOption = "port") -> socket.socket:
    with explaining(settings, option):
        return socket.create_server(address(settings, option), family=family(settings), backlog=BACKLOG)


def hold_grpc_port(settings: Settings) -> socket.socket:
    """Take the port of gRPC for all workers, those of the next release included, which share it by SO_REUSEPORT.

    gRPC cannot be handed connections or a socket, so each worker listens by itself. This socket does not listen, and so
    gets no connection. It is bound before it shares, so that a port on which something listens is an error.
    """
    with ExitStack() as stack, explaining(settings, "grpc_port"):
        sock = stack.enter_context(socket.socket(family(settings)))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address(settings, "grpc_port"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stack.pop_all()
    return sock


def family(settings: Settings) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in settings.host else socket.AF_INET


def address(settings: Settings, option: PortOption) -> tuple[str, int]:
    return settings.host, getattr(settings, option)


@contextmanager
def explaining(settings: Settings, option: PortOption) -> Iterator[None]:
    """Raise StartError for an address that the block cannot have."""
    try:
        yield
    except OSError as cause:
        host, port = address(settings, option)
        # The reason without what Python adds to it; hosts that cannot be resolved have codes below 0.
        reason = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else str(cause)
        choice = f"--{option.replace('_', '-')} or --host"
        raise StartError(f"cannot listen on {host}:{port} ({reason}): choose another {choice}") from cause


def announce_all(settings: Settings, sock: socket.socket) -> None:
    announce(sock)
    if settings.grpc_port is not None:
        print(f"gRPC on {in_address(settings.host)}:{settings.grpc_port}", flush=True)


def announce(sock: socket.socket, what: str = "serving", path: str = "") -> None:
    host, port = sock.getsockname()[:2]
    print(f"{what} on http://{in_address(host)}:{port}{path}", flush=True)


def in_address(host: str) -> str:
    """Return a host as it stands before a port: an address of IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
