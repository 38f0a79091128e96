"""A server in processes of its own for benchmarks/serving.py, and the plain HTTP that it is asked with."""

import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from onnx_release.core.errors import BenchmarkError

HOST = "127.0.0.1"
STARTED_WITHIN = 60.0  # seconds
STOPPED_WITHIN = 10.0
BOUNDARY = "onnx-release-photograph"
READY = f"GET /v2/health/ready HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


@dataclass(frozen=True)
class ServerCommand:
    """How to start a server; "{port}" in `command` stands for its port.

    `form` says whether an upload is a part of a form, or the body itself.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    form: bool = True


@dataclass(frozen=True)
class Running:
    port: int
    process: psutil.Process
    started: float  # of time.perf_counter()

    def tree(self) -> list[psutil.Process]:
        """The process and what it has started."""
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def resident_mb(self) -> float:
        """Resident memory of the tree in MB (10^6 bytes); what processes share counts for each of them."""
        total = 0
        for process in self.tree():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6


@contextmanager
def running(server: ServerCommand, probe: bytes) -> Iterator[Running]:
    """Start the server, wait until `probe` is answered 200, and stop it after the block, with all that it has started.

    Raises BenchmarkError with the end of its output if it does not come up.
    """
    port = free_port()
    command = [argument.format(port=port) for argument in server.command]
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = psutil.Popen(
            command,
            cwd=server.folder,
            env={**os.environ, **server.environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        found = Running(port, process, start)
        try:
            while status(port, probe) != 200:
                if process.poll() is not None or time.perf_counter() - start > STARTED_WITHIN:
                    output.seek(0)
                    raise BenchmarkError(
                        f"{server.name} does not start ({' '.join(command)}):\n{output.read()[-2000:]}"
                    )
                time.sleep(0.005)
            yield found
        finally:
            stop(found)


def stop(found: Running) -> None:
    tree = found.tree()  # before the parent is gone and its children are nobody's
    if tree:
        found.process.terminate()
    _, left = psutil.wait_procs(tree, STOPPED_WITHIN)
    for process in left:
        process.kill()
    psutil.wait_procs(left, STOPPED_WITHIN)


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def upload(photograph: bytes, form: bool) -> bytes:
    """The whole request `POST /predict` with a photograph, as a form with one file or as the body itself."""
    body, kind = photograph, "image/jpeg"
    if form:
        part = 'Content-Disposition: form-data; name="file"; filename="photograph.jpg"\r\nContent-Type: image/jpeg'
        body = f"--{BOUNDARY}\r\n{part}\r\n\r\n".encode() + photograph + f"\r\n--{BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
    path = "/predict" if form else "/inference"
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """The status and the body of the answer. Raises OSError or HTTPException where there is none."""
    with closing(socket.create_connection((HOST, port), timeout=30)) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection, method=request.partition(b" ")[0].decode())
        response.begin()
        return response.status, response.read()


def status(port: int, request: bytes) -> int:
    """The status of the answer, and 0 where there is none."""
    try:
        return ask(port, request)[0]
    except (OSError, http.client.HTTPException):
        return 0


def labels(port: int, request: bytes) -> list[int]:
    """The classes that a server names in its answer, the likeliest first. Raises BenchmarkError if it is no answer."""
    code, body = ask(port, request)
    if code != 200:
        raise BenchmarkError(f"an upload was answered {code}: {body[:500].decode(errors='replace')}")
    found: Any = json.loads(body)
    (prediction,) = found.get("predictions", [found])
    return list(prediction["labels"])
