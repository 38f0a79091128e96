"""Start the worker processes of a server, and speak with each of them.

Parent and worker share a pair of sockets. The parent sends CONNECTION with each connection, and RETIRE. The worker
sends BEAT when it is ready, and then every BEAT_SECONDS. They may be of different releases, so this, the option
--worker and the JSON in the environment variable WORKER are all that they agree on.
"""

import asyncio
import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.settings import Settings

WORKER = "ONNX_RELEASE_WORKER"  # what a worker process is to serve, see start_worker()
CONNECTION, RETIRE, BEAT = b"c", b"r", b"."
BEAT_SECONDS = 0.5
SILENT_BEATS = 6  # a worker that misses so many beats gets no connections
ROOT = Path(__file__).resolve().parents[1]  # the folder that has this code


class WorkerProcess:
    """A worker process. `ready` becomes True when it serves, and False if it ends before that."""

    def __init__(self, process: asyncio.subprocess.Process, ours: socket.socket, theirs: socket.socket) -> None:
        self.process, self.ours, self.theirs = process, ours, theirs
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.missed = 0  # beats
        self.full = False  # it has as many connections as the sockets between hold, and has not taken them yet
        self.unwanted = False  # it was killed, since another one of its release did not start

    def hear(self) -> None:
        with suppress(BlockingIOError):
            if self.ours.recv(64):
                self.missed = 0
                if not self.ready.done():
                    self.ready.set_result(True)

    def can_take(self) -> bool:
        return self.missed < SILENT_BEATS and not self.full

    def give(self, connection: socket.socket) -> bool:
        """Send a connection to the worker; return False if it is full."""
        try:
            socket.send_fds(self.ours, [CONNECTION], [connection.fileno()])
        except OSError:
            self.full = True
        return not self.full

    def take_back(self) -> list[socket.socket]:
        """Return the connections that the worker has not taken, which it will not see any more."""
        untaken: list[socket.socket] = []
        with suppress(BlockingIOError):
            while True:
                _, files, _, _ = socket.recv_fds(self.theirs, 1, 1)
                untaken += [socket.socket(fileno=file) for file in files]
        return untaken

    def retire(self) -> None:
        """Let the worker end once its connections have: it answers what comes on them, and closes each after that."""
        with suppress(OSError):
            self.ours.send(RETIRE)

    def terminate(self) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            self.process.terminate()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


def retire_seconds(settings: Settings) -> float:
    """Return how long a worker that retires waits for its clients to leave.

    Not less than `idle`: a proxy in front expects that its connections stay open for so long, and may just be sending a
    request on one.
    """
    return max(settings.drain, settings.idle)


async def start_worker(settings: Settings, app: str, path: dict[str, str], folder: Path | None) -> WorkerProcess:
    """Start a worker process in `folder`, or else in the folder of this process, wherever that has been moved since.

    It is a new Python, so it imports the code in its folder, and then that in `path`. Raises OSError if the folder is
    missing.
    """
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    given = {"channel": theirs.fileno(), "app": app, "settings": settings.model_dump(exclude_unset=True)}
    debug = [option for option in sys.argv[1:] if option == "--debug"]
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "serving", "--worker", *debug),
            cwd=folder,
            env={**os.environ, **path, WORKER: json.dumps(given, default=reveal)},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            process_group=0,  # Ctrl-C in a terminal reaches the parent alone
        )
    except OSError:
        ours.close()
        theirs.close()
        raise
    return WorkerProcess(process, ours, theirs)


def reveal(value: Any) -> Any:
    """Return the content of a secret, or the text of anything else that JSON does not have."""
    return value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)


def extra_path() -> dict[str, str]:
    """Return where workers find this code if it is not in their own folder, as in a test."""
    if Path.cwd() == ROOT:
        return {}
    safe = {"PYTHONSAFEPATH": "1"} if sys.flags.safe_path else {}
    return {**safe, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))}


def forget_metrics(worker: int) -> None:
    """Remove the gauges of a worker that has ended; its counters stay."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import mark_process_dead  # late, since a start needs none of it

        mark_process_dead(worker)  # type: ignore[no-untyped-call]
