"""Send uploads at a rate that does not depend on the answers; benchmarks/serving.py starts this as a process.

    python -m benchmarks.serving_load '{"port": 8000, "rate": 80, "seconds": 60, ...}'

A request is sent when it is due, whether or not earlier ones were answered, and its latency counts from that time. So
a server that stalls is charged for all requests that come meanwhile. A client that waits for an answer before it sends
the next request would leave them out ("coordinated omission"; wrk2 counts in the same way). `arrivals` are `even`, like
wrk2's constant rate, or `poisson`: independent clients, several of which may come at once.

Requests are made beforehand and connections are kept, so that this takes little of the server's CPU. Writes an .npz
with arrays in the order of the requests: `due` and `latency` in seconds, `late`, the seconds that this process was
behind, and `status`, which is 0 if the connection failed, -1 if all `connections` were taken, and -2 if no answer came.
Prints JSON: `cpu_share` of one core, and with `recovery` the seconds from the end of the load to the first 200 of
/v2/health/ready and of an upload.
"""

import argparse
import asyncio
import json
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import uvloop

from models.mobilenet_v2 import data
from onnx_release.core.command import run_tool
from onnx_release.core.paths import ModelFiles
from tools.server_process import HOST, READY, upload

FAILED, NO_CONNECTION, NO_ANSWER = 0, -1, -2
SEED = 7
PATIENCE = 30.0  # seconds for the last answers
RETRY = 0.01  # seconds between two questions whether the server is ready

Done = Callable[[int], None]


def main(settings: dict[str, Any]) -> None:
    requests = [upload(photograph, True) for photograph in data.encoded(ModelFiles("mobilenet_v2").raw)]
    due = arrivals(settings["arrivals"], settings["rate"], settings["seconds"])
    load = Load(settings["port"], settings["connections"], requests, due)
    start, before = time.perf_counter(), cpu_seconds()
    recovery = uvloop.run(load.run(settings["recovery"]))
    share = (cpu_seconds() - before) / (time.perf_counter() - start)
    np.savez(settings["file"], due=due, latency=load.latency, late=load.late, status=load.status)
    print(json.dumps({"cpu_share": share, **recovery}))


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def arrivals(kind: str, rate: float, seconds: float) -> np.ndarray:
    """Return the times of `rate` times `seconds` requests, in seconds from the start."""
    count = round(rate * seconds)
    if kind == "even":
        return np.arange(count) / rate
    return np.cumsum(np.random.default_rng(SEED).exponential(1 / rate, count))


def parse_head(received: bytes) -> tuple[int, int, bool] | None:
    """Return an answer's status, its length with the head, and whether the connection closes after it.

    Returns None while the head is not complete. Raises ValueError if it has no Content-Length.
    """
    head, end, _ = received.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "content-length" not in fields:
        raise ValueError(f"an answer without Content-Length: {first}")
    length = len(head) + 4 + int(fields["content-length"])
    return int(first.split()[1]), length, fields.get("connection", "").lower() == "close"


class ClientConnection(asyncio.Protocol):
    """A kept connection with at most one request at a time; `done` gets the status of its answer, or FAILED."""

    def __init__(
        self, free: Callable[["ClientConnection"], None], closed: Callable[["ClientConnection"], None]
    ) -> None:
        self.free, self.closed = free, closed
        self.received = b""
        self.done: Done | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def send(self, request: bytes, done: Done) -> None:
        self.done = done
        self.transport.write(request)

    def data_received(self, received: bytes) -> None:
        self.received += received
        head = parse_head(self.received)
        if head is None or len(self.received) < head[1] or self.done is None:
            return
        status, _, closes = head
        # If the answer came before the whole request was sent, the rest must not become a part of the next request.
        if closes or self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.free(self)
        done, self.done, self.received = self.done, None, b""
        done(status)

    def connection_lost(self, _: Exception | None) -> None:
        self.closed(self)
        if self.done is not None:
            done, self.done = self.done, None
            done(FAILED)


class Load:
    def __init__(self, port: int, connections: int, requests: list[bytes], due: np.ndarray) -> None:
        self.port, self.connections, self.requests, self.due = port, connections, requests, due
        self.latency, self.late = np.full(len(due), np.nan), np.zeros(len(due))
        self.status = np.full(len(due), NO_ANSWER)
        self.idle: list[ClientConnection] = []
        self.open = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self, recovery: bool) -> dict[str, float]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for index, due in enumerate(self.due):
            wait = start + due - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            self.late[index] = loop.time() - start - due
            self.send(self.requests[index % len(self.requests)], self.recorder(index, start + due))
        found = await self.recover() if recovery else {}
        end = loop.time() + PATIENCE
        while (self.status == NO_ANSWER).any() and loop.time() < end:
            await asyncio.sleep(RETRY)
        return found

    def recorder(self, index: int, due: float) -> Done:
        def record(status: int) -> None:
            self.status[index] = status
            self.latency[index] = asyncio.get_running_loop().time() - due

        return record

    def send(self, request: bytes, done: Done) -> None:
        while self.idle:
            connection = self.idle.pop()
            if not connection.transport.is_closing():  # the server closes it after some seconds without a request
                connection.send(request, done)
                return
        if self.open < self.connections:
            self.open += 1
            task = asyncio.ensure_future(self.connect_and_send(request, done))
            self.tasks.add(task)  # the loop itself keeps no reference
            task.add_done_callback(self.tasks.discard)
        else:
            done(NO_CONNECTION)

    async def connect_and_send(self, request: bytes, done: Done) -> None:
        def made() -> ClientConnection:
            return ClientConnection(self.idle.append, self.closed)

        try:
            _, connection = await asyncio.get_running_loop().create_connection(made, HOST, self.port)
        except OSError:
            self.open -= 1
            done(FAILED)
        else:
            connection.send(request, done)

    def closed(self, connection: ClientConnection) -> None:
        self.open -= 1
        if connection in self.idle:
            self.idle.remove(connection)

    async def recover(self) -> dict[str, float]:
        """Return the seconds until the server says that it is ready, and until it answers an upload."""
        start = asyncio.get_running_loop().time()
        found = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for name, request in (("ready_seconds", READY), ("answered_seconds", self.requests[0])):
                    while await self.ask(request) != 200:
                        await asyncio.sleep(RETRY)
                    found[name] = asyncio.get_running_loop().time() - start
        return found

    async def ask(self, request: bytes) -> int:
        answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.send(request, answered.set_result)
        return await answered


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=json.loads, help="JSON with the port, the rate and the other settings")
    run_tool(lambda arguments: main(arguments.settings), parser)
