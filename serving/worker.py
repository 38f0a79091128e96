"""Serve, in a worker process, the connections that its parent gives it; see serving/worker_process.py.

uvicorn speaks HTTP on each connection. Its server is not used: it accepts connections itself, tells the application
only after the last answer that the server stops, and logs what the application raises while it starts.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from importlib import import_module
from typing import Any, cast

import uvicorn
import uvloop

from serving.connection import LINGER_SECONDS, Connection
from serving.grpc_port import has_connections, leave_port, leave_port_to_one
from serving.settings import Settings
from serving.uvicorn_names import ServerState, check_uvicorn
from serving.worker_process import BEAT, BEAT_SECONDS, RETIRE, retire_seconds

LOOK_SECONDS = 0.05  # how often a server that ends looks whether its connections have


def work(settings: Settings, app: str, channel: int) -> None:
    """Serve the connections that come over the socket `channel`, until SIGTERM or the end of the parent.

    `app` is MODULE:FUNCTION; the function makes the Starlette application from the settings. Raises what that raises,
    or what the application raises while it starts.
    """
    check_uvicorn()
    os.set_inheritable(channel, False)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the parent
    module, _, name = app.partition(":")
    make: Callable[[Settings], Any] = getattr(import_module(module), name)
    uvloop.run(Server(make(settings), settings, socket.socket(fileno=channel)).run())


class Server:
    """The server of one worker. The application's `state.ready` is set to False when it begins to stop."""

    def __init__(self, app: Any, settings: Settings, channel: socket.socket) -> None:
        self.app, self.settings, self.channel = app, settings, channel
        self.config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=settings.idle,  # type: ignore[arg-type]  # it takes fractions of a second, too
        )
        self.config.load()
        self.state = ServerState()
        self.lifespan_state: dict[str, Any] = {}
        self.arriving: set[asyncio.Task[Any]] = set()
        self.retiring: asyncio.Task[None] | None = None
        self.stopped = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        async with self.app.router.lifespan_context(self.app) as state:
            self.lifespan_state = dict(state or {})
            loop.add_signal_handler(signal.SIGTERM, self.stop)
            tasks = [loop.create_task(self.keep_date()), loop.create_task(self.beat())]
            loop.add_reader(self.channel, self.read_channel)
            await self.stopped.wait()
            loop.remove_reader(self.channel)
            await self.drain()
            for task in tasks:
                task.cancel()

    def stop(self) -> None:
        """Begin to stop with the whole server; one that only retires is ready to its end, for calls of gRPC."""
        self.app.state.ready = False
        self.stopped.set()

    async def keep_date(self) -> None:
        while True:
            self.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            await asyncio.sleep(1)

    async def beat(self) -> None:
        while True:
            with suppress(OSError):  # the parent hangs, or has ended
                self.channel.send(BEAT)
            await asyncio.sleep(BEAT_SECONDS)

    def read_channel(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            message, files, _, _ = socket.recv_fds(self.channel, 1, 1)
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
        if message == RETIRE:
            self.retiring = loop.create_task(self.retire())
        elif not message:  # the parent has ended, and nobody else can stop this process
            loop.remove_reader(self.channel)
            self.stop()

    def make_connection(self) -> Connection:
        return Connection(self.settings, config=self.config, server_state=self.state, app_state=self.lifespan_state)

    def connections(self) -> list[Connection]:
        return cast(list[Connection], list(self.state.connections))

    async def retire(self) -> None:
        """Stop once every client has had an answer that says that its connection closes, or has been idle."""
        grpc_port, seconds = self.settings.grpc_port, retire_seconds(self.settings)
        if grpc_port is not None:
            leave_port(grpc_port, self.settings.workers)
        await asyncio.gather(*self.arriving, return_exceptions=True)
        for connection in self.connections():
            connection.retire()
        if grpc_port is not None:
            await asyncio.sleep(seconds)  # by then those connections have come that had begun to
        await self.is_empty_within(seconds, grpc_port)
        if grpc_port is not None:
            leave_port_to_one(grpc_port, self.settings.workers)
        self.stopped.set()

    async def drain(self) -> None:
        """Answer the present requests for up to `drain` seconds, and those that remain with 503."""
        for connection in self.connections():
            connection.shutdown()
        if await self.is_empty_within(self.settings.drain):
            return
        print(f"warning: requests were cut off after {self.settings.drain:g} seconds, see --drain", file=sys.stderr)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it would log each as an error
        for connection in self.connections():
            connection.cut_off()
        await self.is_empty_within(LINGER_SECONDS)

    async def is_empty_within(self, seconds: float, grpc_port: int | None = None) -> bool:
        """Return whether all requests and connections end in time, those to `grpc_port` included."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self.state.connections or self.state.tasks or (grpc_port is not None and has_connections(grpc_port)):
            if loop.time() >= end:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True
