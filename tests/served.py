"""A server in a process of its own, and requests to it by the bytes that go over the socket."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.client import parse_headers
from pathlib import Path
from typing import Any

import uvicorn

from tests.imports import ROOT

PATIENCE = 30.0  # seconds until a test gives up on a server that does not answer


@dataclass
class Answer:
    status: int
    headers: Any
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.reader = self.socket.makefile("rb")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.socket.close()

    def send(self, *parts: bytes) -> "Client":
        self.socket.sendall(b"".join(parts))
        return self

    def answer(self, method: str = "GET") -> Answer:
        line = self.reader.readline()
        if not line:
            raise ConnectionResetError("closed without an answer")
        status = int(line.split()[1])
        headers = parse_headers(self.reader)
        has_content = method != "HEAD" and status >= 200
        return Answer(status, headers, self.reader.read(int(headers["content-length"])) if has_content else b"")

    def closed(self) -> bool:
        """Waits for the server to close, or to send something more."""
        try:
            return not self.reader.read(1)
        except ConnectionError:
            return True


def head(path: str, method: str = "GET", **headers: object) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int

    def connect(self) -> Client:
        return Client(self.port)

    def printed(self) -> str:
        """The next line on its standard output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def logged(self) -> str:
        """The next line on its standard error."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def get(self, path: str) -> Answer:
        with self.connect() as client:
            return client.send(head(path, Connection="close")).answer()


def start(*command: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, which Ctrl-C in a terminal reaches as a whole
    )


def announced_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving on http://"), line + process.communicate()[1]
    return int(line.rsplit(":", 1)[1])


@contextmanager
def served(*command: str, log: str = "") -> Iterator[Server]:
    """Run `python -m COMMAND`, which says where it serves. Stops it at the end; it logged `log` and nothing else."""
    process = start(*command)
    try:
        yield Server(process, announced_port(process))
        process.terminate()
        printed, errors = process.communicate(timeout=PATIENCE)
        assert printed == ""
        assert re.fullmatch(log, errors), errors
    finally:
        process.kill()
        process.communicate()


@contextmanager
def in_thread(app: Any, **options: Any) -> Iterator[int]:
    """The port of an ASGI application that runs in a thread of the test."""
    with socket.create_server(("127.0.0.1", 0)) as listening:  # clients that are early wait in its backlog
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def wire_app(log: str = "", **settings: object) -> AbstractContextManager[Server]:
    """The small application of tests/wire_app.py, in processes of its own."""
    return served("tests.wire_app", json.dumps({"port": 0, **settings}), log=log)


@contextmanager
def serving(release: Path, python: Any = sys.executable, logged: str = "", **settings: object) -> Iterator[Server]:
    """`python -m serving` in the release's folder, as anybody starts it, with the release's code and no other.

    It logged what the pattern `logged` says.
    """
    options = [item for name, value in settings.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    process = subprocess.Popen(
        [python, "-m", "serving", "--port", "0", *options],
        cwd=release,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Server(process, announced_port(process))
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert re.fullmatch(logged, errors), errors
    finally:
        process.kill()
        process.communicate()
