"""Start a server as a process, and send it plain HTTP, for benchmarks/serving.py and tools/releases.py."""

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
    """A command that starts a server; "{port}" in `command` stands for its port.

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
    started: float  # by time.perf_counter()

    def tree(self) -> list[psutil.Process]:
        """Return the process and all that it has started."""
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def resident_mb(self) -> float:
        """Return the resident memory of the tree in MB (10^6 bytes); shared memory counts for each process."""
        total = 0
        for process in self.tree():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / 1e6


@contextmanager
def running(server: ServerCommand, probe: bytes) -> Iterator[Running]:
    """Start the server, wait until `probe` is answered 200, and stop it and all its processes after the block.

    Raises BenchmarkError with the end of its output if it does not start.
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
    tree = found.tree()  # while the parent still has its children
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
    """Return the whole request `POST /predict` with a photograph, as a form with one file or as the body itself."""
    body, kind = photograph, "image/jpeg"
    if form:
        part = 'Content-Disposition: form-data; name="file"; filename="photograph.jpg"\r\nContent-Type: image/jpeg'
        body = f"--{BOUNDARY}\r\n{part}\r\n\r\n".encode() + photograph + f"\r\n--{BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
    return post("/predict" if form else "/inference", body, kind)


def post(path: str, body: bytes, content_type: str) -> bytes:
    """Return the whole request `POST path` with the body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """Return the status and the body of the answer. Raises OSError or HTTPException if there is none."""
    with closing(socket.create_connection((HOST, port), timeout=30)) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection, method=request.partition(b" ")[0].decode())
        response.begin()
        return response.status, response.read()


def status(port: int, request: bytes) -> int:
    """Return the status of the answer, and 0 if there is none."""
    try:
        return ask(port, request)[0]
    except (OSError, http.client.HTTPException):
        return 0


def labels(port: int, request: bytes) -> list[int]:
    """Return the classes in a server's answer, the most probable first. Raises BenchmarkError for another answer."""
    code, body = ask(port, request)
    if code != 200:
        raise BenchmarkError(f"an upload was answered {code}: {body[:500].decode(errors='replace')}")
    found: Any = json.loads(body)
    (prediction,) = found.get("predictions", [found])
    return list(prediction["labels"])
