"""Run the application in one process, or in several that share a port, until SIGTERM.

With one worker everything happens in this process. With more, the parent accepts connections and gives them to the
workers in turn, as Node's cluster does. If workers accepted connections themselves, from one socket or from sockets of
their own (SO_REUSEPORT), chance would decide: one worker could get all of eight clients that keep their connections. A
connection that comes while a worker is replaced goes to another one. uvicorn's own supervisor lets workers accept. It
also kills workers that answer its pings too late, as those do that load a model on a busy machine, and ignores a second
signal.
"""

import asyncio
import functools
import itertools
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, cast

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.lifespan.on import LifespanOn

from onnx_release.core.command import describe_refusal
from onnx_release.core.errors import ReleaseError
from serving.connection import REFUSED_CONNECTIONS, Connection
from serving.metrics_port import answer_metrics
from serving.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

STOPPING = (signal.SIGTERM, signal.SIGINT)
BACKLOG = 4096  # connections that the kernel keeps until they are accepted; it has a limit of its own (somaxconn)
OTHER_FILES = 256  # open files besides connections: libraries, the model, pipes

AppFactory = Callable[[Settings], Any]

turns = itertools.count()  # which worker gets the next connection


class StartError(ReleaseError):
    """The server cannot start: the address, the machine's limits, or a worker that stopped."""


def release_app(settings: Settings) -> "FastAPI":
    """Make the application for the release in the current folder.

    It is imported here, since the parent of several processes does not need it. Raises StartError for files that cannot
    be read, and what create_app raises.
    """
    try:
        from serving.app import create_app

        return create_app(settings)
    except (ImportError, SyntaxError) as cause:
        raise StartError(
            f"the server cannot be loaded ({cause}): run `pip install -r requirements.txt`, or fetch the release again"
        ) from cause
    except OSError as cause:
        # Without a path it is what opened, and then could not be read.
        reason = describe_refusal(cause) or f"a file of the release cannot be read ({cause.strerror}): fetch it again"
        raise StartError(reason) from cause
    except RecursionError as cause:
        raise StartError("a file of the release is nested too deeply: fetch the release again") from cause


def serve(settings: Settings, app: AppFactory = release_app) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code.

    `app` is a function of a module that makes the ASGI application from the settings. Its `state.ready` is set to
    False when the server begins to stop.

    Raises StartError, or what the application raises while it starts.
    """
    raise_file_limit(settings.connections)
    with listen(settings) as sock:
        if settings.workers == 1:
            with own_metrics_port(settings):
                return run_server(settings, app, [sock], lambda: announce(sock))
        with tempfile.TemporaryDirectory(prefix="serving-") as folder:
            # The workers' metrics meet in this folder: prometheus_client reads the variable when it is imported. This
            # process counts nothing.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            with own_metrics_port(settings):
                return supervise(settings, app, sock)


def raise_file_limit(connections: int) -> None:
    """Let this process, and the workers that it starts, open as many files as its connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + REFUSED_CONNECTIONS + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        possible = hard - REFUSED_CONNECTIONS - OTHER_FILES
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


@contextmanager
def own_metrics_port(settings: Settings) -> Iterator[None]:
    """Answer /metrics on its own port while the block runs, if the settings name one. Raises StartError."""
    if not settings.metrics or settings.metrics_port is None:
        yield
        return
    with listen(settings, "metrics_port") as sock, answer_metrics(settings, sock):
        announce(sock, "metrics", "/metrics")
        yield


# One process.

Channel = socket.socket | None


class Lifespan(LifespanOn):
    """uvicorn's lifespan, except that an error of the application while it starts is raised and not logged."""

    failure: BaseException | None = None

    async def startup(self) -> None:
        await super().startup()
        if self.failure:
            raise self.failure

    async def main(self) -> None:
        try:
            scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
            await self.config.loaded_app(scope, self.receive, self.send)
        except BaseException as error:
            if not self.startup_event.is_set():
                self.failure = error
            elif not self.shutdown_failed:
                traceback.print_exc()
        finally:
            self.startup_event.set()
            self.shutdown_event.set()

    async def send(self, message: Any) -> None:
        if message["type"] != "lifespan.startup.failed":  # the exception itself follows
            await super().send(message)


class Server(uvicorn.Server):
    """uvicorn's server, which also says when it is ready, stops the application at once, and ends at a second signal.

    A worker process gets its connections from `channel`.
    """

    def __init__(self, config: uvicorn.Config, drain: float, started: Callable[[], None], channel: Channel) -> None:
        super().__init__(config)
        self.drain, self.tell, self.channel = drain, started, channel
        self.arriving: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.channel:
            asyncio.get_running_loop().add_reader(self.channel, self.take_connection, self.channel)
        self.tell()

    def take_connection(self, channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            message, files, _, _ = socket.recv_fds(channel, 1, 1)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message, files = b"", []
        for file in files:  # one, or none
            accepted = socket.socket(fileno=file)
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(loop.connect_accepted_socket(self.make_connection, accepted))
            self.arriving.add(task)
            task.add_done_callback(self.arriving.discard)
        if not message:  # the parent has ended, and nobody else can stop this process
            loop.remove_reader(channel)
            self.handle_exit(signal.SIGTERM, None)

    def make_connection(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn makes one
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.channel and sig == signal.SIGINT:
            return  # Ctrl-C reaches the whole group, and the parent passes it on as SIGTERM
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True
        # uvicorn shuts the application down only after the last answer.
        self.config.loaded_app.state.ready = False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        if self.channel:
            loop.remove_reader(self.channel)
        end = loop.call_later(self.drain, self.cut_off)
        await super().shutdown(sockets)
        end.cancel()
        if self.force_exit:
            await self.lifespan.shutdown()  # uvicorn leaves it out then

    def cut_off(self) -> None:
        """Answer the remaining requests 503. uvicorn's own time limit would answer 500 and log a traceback for each."""
        print(f"warning: requests were cut off after {self.drain:g} seconds, see --drain", file=sys.stderr)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        for connection in list(self.server_state.connections):
            cast(Connection, connection).cut_off()
        self.force_exit = True


def run_server(
    settings: Settings,
    app: AppFactory,
    sockets: list[socket.socket],
    started: Callable[[], None],
    channel: Channel = None,
) -> int:
    config = uvicorn.Config(
        app(settings),
        http=functools.partial(Connection, settings),  # type: ignore[arg-type]  # it is only called
        loop="uvloop",
        ws="none",
        interface="asgi3",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.idle,  # type: ignore[arg-type]  # it takes fractions of a second, too
    )
    config.load()
    config.lifespan_class = Lifespan
    Server(config, settings.drain, started, channel).run(sockets)
    return 0


# Several processes.


@dataclass(eq=False)
class ServerProcess:
    process: SpawnProcess
    channel: socket.socket  # it sends a byte when it is ready, and gets connections
    ready: bool = False


def start_worker(settings: Settings, app: AppFactory) -> ServerProcess:
    context = multiprocessing.get_context("spawn")  # a model's threads and a fork do not go together
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        process = context.Process(target=work, args=(settings, app, theirs))
        process.start()
    return ServerProcess(process, ours)


def work(settings: Settings, app: AppFactory, channel: socket.socket) -> None:
    """Serve connections from `channel`, in a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until handle_exit() takes over
    channel.setblocking(False)
    try:
        sys.exit(run_server(settings, app, [], lambda: channel.sendall(b"!"), channel))
    except ReleaseError as error:
        sys.stderr.write(f"error: {error}\n")  # in one call, or it would mix with another worker's
        sys.exit(1)


@contextmanager
def signals() -> Iterator[tuple[list[int], socket.socket]]:
    """Collect the signals to stop in a list, and give a socket that becomes readable with each."""
    came: list[int] = []
    reader, writer = socket.socketpair()
    with reader, writer:
        for end in (reader, writer):
            end.setblocking(False)
        before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in STOPPING}
        signal.set_wakeup_fd(writer.fileno())
        try:
            yield came, reader
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)


def supervise(settings: Settings, app: AppFactory, sock: socket.socket) -> int:
    """Keep `workers` processes alive until a signal, and then until the last of them is done; return the exit code."""
    sock.setblocking(False)
    with signals() as (came, wakeup):
        workers = Workers(settings, app, sock)
        while workers.alive:
            readable = workers.wait(wakeup)
            workers.note_ready(readable)
            if sock in readable:
                hand_out(sock, [worker.channel for worker in workers.alive if worker.ready])
            if came and workers.stopping:
                workers.kill()
                return 128 + came[-1]
            if came:
                workers.stop()
                came.clear()
                wakeup.recv(64)
            workers.handle_ended(readable)
        return workers.code


class Workers:
    """The worker processes of a server that are `alive`, and the exit `code` that the server will have."""

    def __init__(self, settings: Settings, app: AppFactory, sock: socket.socket) -> None:
        self.settings, self.app, self.sock = settings, app, sock
        self.alive = [start_worker(settings, app) for _ in range(settings.workers)]
        self.announced, self.stopping, self.code = False, False, 0

    def wait(self, wakeup: socket.socket) -> list[Any]:
        """Wait for a signal, a connection, or a worker that is ready or has ended; return what is readable."""
        starting = [worker for worker in self.alive if not worker.ready]
        accepts = [self.sock] if len(starting) < len(self.alive) and not self.stopping else []
        ends = [worker.process.sentinel for worker in self.alive]
        return wait([wakeup, *accepts, *(worker.channel for worker in starting), *ends])

    def note_ready(self, readable: list[Any]) -> None:
        for worker in self.alive:
            if not worker.ready:
                worker.ready = worker.channel in readable and bool(worker.channel.recv(1))
        if not self.announced and all(worker.ready for worker in self.alive):
            announce(self.sock)
            self.announced = True

    def stop(self) -> None:
        self.stopping = True
        self.sock.close()  # what comes now is refused
        for worker in self.alive:
            worker.process.terminate()

    def kill(self) -> None:
        for worker in self.alive:
            worker.process.kill()

    def handle_ended(self, readable: list[Any]) -> None:
        """Start another worker for each one that has ended; stop the server if one did not start."""
        for worker in [worker for worker in self.alive if worker.process.sentinel in readable]:
            worker.process.join()
            worker.channel.close()
            self.alive.remove(worker)
            forget_metrics(worker.process.pid)
            if self.stopping:
                # A worker that was still starting can only be stopped by the signal.
                self.code = self.code or int(worker.ready and worker.process.exitcode != 0)
            elif not worker.ready:
                print("error: a worker did not start, see above: the server stops", file=sys.stderr)
                self.code = 1
                self.stop()
            else:
                ended = f"worker {worker.process.pid} ended ({worker.process.exitcode})"
                print(f"warning: {ended}: another one starts", file=sys.stderr)
                self.alive.append(start_worker(self.settings, self.app))


def hand_out(sock: socket.socket, channels: list[socket.socket]) -> None:
    """Accept waiting connections, and give each to the worker whose turn it is, or to the next that has room."""
    with suppress(OSError):  # no more are waiting, or no more can be open
        for _ in range(BACKLOG):
            connection, _ = sock.accept()
            with connection:
                for _ in channels:
                    channel = channels[next(turns) % len(channels)]
                    with suppress(OSError):  # full, or its worker has ended
                        socket.send_fds(channel, [b"!"], [connection.fileno()])
                        break


def forget_metrics(worker: int | None) -> None:
    """Remove the gauges of a worker that has ended; its counters stay."""
    mark_process_dead(worker)  # type: ignore[no-untyped-call]
