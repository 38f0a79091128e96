"""Keep the worker processes of a server, hand them the connections, and swap them for those of a new release.

The parent accepts connections and gives them to the workers in turn, as Node's cluster does. If workers accepted them
themselves, from one socket or from sockets of their own (SO_REUSEPORT), chance would decide: one worker could get all
of eight clients that keep their connections, and one that is stopped would keep its share. What a worker has not taken
can be taken back from it, so a worker that hangs or dies costs no connection that it has not begun to serve.
"""

import asyncio
import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.settings import Settings
from serving.worker_process import (
    BEAT_SECONDS,
    SILENT_BEATS,
    WorkerProcess,
    extra_path,
    forget_metrics,
    retire_seconds,
    start_worker,
)

FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0  # seconds until a worker that did not start is started again
KILL_SECONDS = 5.0  # workers that have not ended so long after they should have are killed
BACKLOG = 4096  # connections that the kernel keeps until they are accepted; it has a limit of its own (somaxconn)


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
        self.serving: list[WorkerProcess] = []  # those of the present release; another list when the release changes
        self.alive: set[WorkerProcess] = set()  # these, and those that start or retire
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

    async def start(self, folder: Path | None = None) -> WorkerProcess:
        worker = await start_worker(self.settings, self.app, self.path, folder)
        self.alive.add(worker)
        self.loop.add_reader(worker.ours, self.hear, worker)
        self.do(self.watch(worker))
        if self.stopping:
            worker.terminate()
        return worker

    async def start_release(self, folder: Path | None) -> list[WorkerProcess]:
        """Start all workers, and return them when they are ready; if one does not start, end the others."""
        new: list[WorkerProcess] = []
        try:
            while len(new) < self.settings.workers:
                new.append(await self.start(folder))
            await asyncio.wait([worker.ready for worker in new])
            if self.alive.issuperset(new):
                return new
        except OSError as error:  # the folder is missing, or the system has no room for another process
            print(f"error: {folder or sys.executable}: {error.strerror}", file=sys.stderr)
        for worker in self.alive.intersection(new):
            worker.unwanted = True
            worker.kill()
        return []

    def hear(self, worker: WorkerProcess) -> None:
        worker.hear()
        self.accept_or_wait()

    async def watch(self, worker: WorkerProcess) -> None:
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
        while self.serving is release and not self.stopping:
            worker = await self.start_another()
            if self.stopping:
                return
            if worker and self.serving is not release:
                worker.retire()
            elif worker:
                release.append(worker)
                self.accept_or_wait()
                return
            elif not self.alive:
                print("error: no worker is left, see above: the server stops", file=sys.stderr)
                self.end(1)
                return
            else:
                again = f"the others serve, and it is tried again in {delay:g} seconds"
                print(f"warning: a worker did not start, see above: {again}", file=sys.stderr)
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_RETRY)

    async def start_another(self) -> WorkerProcess | None:
        """Start a worker, and return it when it is ready; None if it does not start."""
        try:
            worker = await self.start()
        except OSError as error:
            print(f"error: {sys.executable}: {error.strerror}", file=sys.stderr)
            return None
        return worker if await worker.ready and worker in self.alive else None

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

    def has_room(self, worker: WorkerProcess) -> None:
        self.loop.remove_writer(worker.ours)
        worker.full = False
        self.accept_or_wait()

    # Signals.

    def stop(self, number: int) -> None:
        if self.stopping:
            self.kill(self.alive)
            self.end(128 + number)
            return
        self.stopping = True
        self.loop.remove_reader(self.sock)
        self.sock.close()  # what comes now is refused
        for connection in self.kept:
            connection.close()
        for worker in self.alive:
            worker.terminate()
        if not self.alive:
            self.end(self.code)
        self.loop.call_later(self.settings.drain + KILL_SECONDS, self.kill, self.alive)

    def kill(self, workers: Iterable[WorkerProcess]) -> None:
        for worker in self.alive.intersection(workers):
            worker.kill()

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
        new = await self.start_release(self.folder)
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
        patience = 2 * retire_seconds(self.settings) + self.settings.drain + KILL_SECONDS  # twice for gRPC
        self.loop.call_later(patience, self.kill, old)  # those that hang
        self.accept_or_wait()
        print(f"serving the release that is now in {self.folder}", flush=True)
