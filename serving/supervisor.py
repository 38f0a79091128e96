"""Keep the worker processes of a server, hand them the connections, and swap them for those of a new release.

The parent accepts connections and gives them to the workers in turn, as Node's cluster does. If workers accepted them
themselves, from one socket or from sockets of their own (SO_REUSEPORT), chance would decide: one worker could get all
of eight clients that keep their connections, and one that is stopped would keep its share. What a worker has not taken
can be taken back from it, so a worker that hangs or dies costs no connection that it has not begun to serve.

Parent and worker share a pair of sockets. The parent sends CONNECTION with each connection, and RETIRE. The worker
sends BEAT when it is ready, and then every BEAT_SECONDS. They may be of different releases, so this and the JSON in the
environment variable WORKER are all that they agree on.
"""

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.settings import Settings

WORKER = "ONNX_RELEASE_WORKER"  # what a worker process is to serve, see start_worker()
CONNECTION, RETIRE, BEAT = b"c", b"r", b"."
BEAT_SECONDS = 0.5
SILENT_BEATS = 6  # a worker that misses so many beats gets no connections
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0  # seconds until a worker that did not start is started again
KILL_SECONDS = 5.0  # workers that have not ended so long after `drain` are killed
BACKLOG = 4096  # connections that the kernel keeps until they are accepted; it has a limit of its own (somaxconn)
ROOT = Path(__file__).resolve().parents[1]  # the folder that has this code


class Worker:
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

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


async def start_worker(settings: Settings, app: str, path: dict[str, str], folder: Path | None) -> Worker:
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
    return Worker(process, ours, theirs)


def reveal(value: Any) -> Any:
    """Return the content of a secret, or the text of anything else that JSON does not have."""
    return value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)


def extra_path() -> dict[str, str]:
    """Return where workers find this code if it is not in their own folder, as in a test."""
    if Path.cwd() == ROOT:
        return {}
    safe = {"PYTHONSAFEPATH": "1"} if sys.flags.safe_path else {}
    return {**safe, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))}


def working_folder() -> Path:
    """Return the current folder by the name under which it was entered, which may be a symbolic link."""
    entered = Path(os.environ.get("PWD", ""))
    with suppress(OSError):
        if entered.is_absolute() and entered.samefile("."):
            return entered
    return Path.cwd()


def has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Supervisor:
    """The parent of the workers. `run` returns the exit code of the server."""

    def __init__(self, settings: Settings, app: str, sock: socket.socket, announce: Callable[[], None]) -> None:
        self.settings, self.app, self.sock, self.announce = settings, app, sock, announce
        self.folder, self.path = working_folder(), extra_path()
        # SIGHUP also says that the terminal was closed, unless nohup was told to ignore that.
        self.in_terminal = has_terminal() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
        self.serving: list[Worker] = []  # those of the present release; another list when the release changes
        self.alive: set[Worker] = set()  # these, and those that start or retire
        self.kept: list[socket.socket] = []  # connections that no worker can take now
        self.accepting, self.stopping, self.code = False, False, 0
        self.turns = itertools.count()
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        self.loop = asyncio.get_running_loop()
        self.over: asyncio.Future[int] = self.loop.create_future()
        self.release_asked = asyncio.Event()
        self.sock.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stop, number)
        self.loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        self.serving = await self.start_release(None)
        if self.serving:
            self.announce()
            self.accept_or_wait()
            self.do(self.count_beats())
            self.do(self.change_releases())
        elif not self.stopping:
            self.end(1)
        return await self.over

    def do(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self.tasks.discard)

    def end(self, code: int) -> None:
        if not self.over.done():
            self.over.set_result(code)

    # Workers.

    async def start(self, folder: Path | None = None) -> Worker:
        worker = await start_worker(self.settings, self.app, self.path, folder)
        self.alive.add(worker)
        self.loop.add_reader(worker.ours, self.hear, worker)
        self.do(self.watch(worker))
        if self.stopping:
            worker.process.terminate()
        return worker

    async def start_release(self, folder: Path | None) -> list[Worker]:
        """Start all workers, and return them when they are ready; if one does not start, end the others."""
        new = [await self.start(folder) for _ in range(self.settings.workers)]
        await asyncio.wait([worker.ready for worker in new])
        if self.alive.issuperset(new):
            return new
        for worker in self.alive.intersection(new):
            worker.unwanted = True
            worker.process.kill()
        return []

    def hear(self, worker: Worker) -> None:
        worker.hear()
        self.accept_or_wait()

    async def watch(self, worker: Worker) -> None:
        """Wait until a worker ends, and replace it if it was serving."""
        code = await worker.process.wait()
        self.alive.discard(worker)
        self.loop.remove_reader(worker.ours)
        self.loop.remove_writer(worker.ours)
        self.kept += worker.take_back()
        worker.close()
        forget_metrics(worker.process.pid)
        began, serving = worker.ready.done(), worker in self.serving
        if not began:
            worker.ready.set_result(False)
        if self.stopping:
            self.code = self.code or int(serving and code != 0)
            if not self.alive:
                self.end(self.code)
            return
        if not began and not worker.unwanted and code not in (1, 2):  # with these it has said why
            print(f"error: a worker ended before it was ready ({code})", file=sys.stderr)
        if serving:
            self.serving.remove(worker)
            print(f"warning: worker {worker.process.pid} ended ({code}): another one starts", file=sys.stderr)
            self.accept_or_wait()
            await self.replace()

    async def replace(self) -> None:
        """Start a worker of the present release, and try again if it does not start, unless no other is left."""
        release, delay = self.serving, FIRST_RETRY
        while True:
            worker = await self.start()
            started = await worker.ready
            if self.stopping:
                return
            if self.serving is not release:
                worker.retire()
                return
            if started and worker in self.alive:
                release.append(worker)
                self.accept_or_wait()
                return
            if not self.alive:
                print("error: no worker is left, see above: the server stops", file=sys.stderr)
                self.end(1)
                return
            again = f"the others serve, and it is tried again in {delay:g} seconds"
            print(f"warning: a worker did not start, see above: {again}", file=sys.stderr)
            await asyncio.sleep(delay)
            if self.stopping or self.serving is not release:
                return
            delay = min(2 * delay, LONGEST_RETRY)

    async def count_beats(self) -> None:
        """Take connections back from workers that hang. It counts its own turns: the machine may have slept."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self.stopping:
                return
            for worker in self.serving:
                worker.missed += 1
                if worker.missed == SILENT_BEATS:
                    print(
                        f"warning: worker {worker.process.pid} hangs: it gets no connections until it goes on",
                        file=sys.stderr,
                    )
                if worker.missed >= SILENT_BEATS:
                    self.kept += worker.take_back()
            self.accept_or_wait()

    # Connections.

    def accept_or_wait(self) -> None:
        """Accept connections while a worker can take them; leave them to the kernel otherwise."""
        if self.stopping:
            return
        while self.kept and self.hand_out(self.kept[-1]):
            self.kept.pop().close()
        able = not self.kept and any(worker.can_take() for worker in self.serving)
        if able and not self.accepting:
            self.loop.add_reader(self.sock, self.accept)
        elif self.accepting and not able:
            self.loop.remove_reader(self.sock)
        self.accepting = able

    def accept(self) -> None:
        with suppress(OSError):  # no more are waiting, or no more can be open
            for _ in range(BACKLOG):
                connection, _ = self.sock.accept()
                if not self.hand_out(connection):
                    self.kept.append(connection)
                    break
                connection.close()
        self.accept_or_wait()

    def hand_out(self, connection: socket.socket) -> bool:
        """Give a connection to the worker whose turn it is, or to the next that can take it; return whether one did."""
        while able := [worker for worker in self.serving if worker.can_take()]:
            worker = able[next(self.turns) % len(able)]
            if worker.give(connection):
                return True
            self.loop.add_writer(worker.ours, self.has_room, worker)
        return False

    def has_room(self, worker: Worker) -> None:
        self.loop.remove_writer(worker.ours)
        worker.full = False
        self.accept_or_wait()

    # Signals.

    def stop(self, number: int) -> None:
        if self.stopping:
            self.kill()
            self.end(128 + number)
            return
        self.stopping = True
        self.loop.remove_reader(self.sock)
        self.sock.close()  # what comes now is refused
        for connection in self.kept:
            connection.close()
        for worker in self.alive:
            worker.process.terminate()
        if not self.alive:
            self.end(self.code)
        self.loop.call_later(self.settings.drain + KILL_SECONDS, self.kill)

    def kill(self) -> None:
        for worker in self.alive:
            worker.process.kill()

    def hang_up(self) -> None:
        if self.in_terminal and not has_terminal():
            if not self.stopping:
                self.stop(signal.SIGHUP)
        else:
            self.release_asked.set()

    async def change_releases(self) -> None:
        while True:
            await self.release_asked.wait()
            self.release_asked.clear()
            await self.change_release()

    async def change_release(self) -> None:
        """Load the release that is now in the server's folder; the workers of the one before answer what they have."""
        try:
            new = await self.start_release(self.folder)
        except OSError as error:
            print(f"error: {self.folder}: {error.strerror}", file=sys.stderr)
            new = []
        if self.stopping:
            return
        if not new:
            print("error: the new release was not loaded, see above: the one before serves on", file=sys.stderr)
            return
        os.chdir(self.folder)
        old, self.serving = self.serving, new
        for worker in old:
            self.kept += worker.take_back()
            worker.retire()
        self.accept_or_wait()
        print(f"serving the release that is now in {self.folder}", flush=True)


def forget_metrics(worker: int) -> None:
    """Remove the gauges of a worker that has ended; its counters stay."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        from prometheus_client.multiprocess import mark_process_dead  # late, since a single worker needs none of it

        mark_process_dead(worker)  # type: ignore[no-untyped-call]
