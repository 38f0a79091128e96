"""Keep processes that decode and preprocess uploads, and end those that take too long.

Each of the engine's threads hands its uploads to a process of its own and waits. A process that takes the rest of its
request's CPU time, reaches its deadline, or has an upload whose client has left, is ended, and another one takes its
place: a fork of a process that has the libraries already, so this takes milliseconds. Arrays come back through shared
memory.
"""

import logging
import multiprocessing
import signal
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import orjson

from onnx_release.core.errors import ReleaseError
from onnx_release.core.types import Arrays
from serving.cpu_budget import CpuBudget, Spending
from serving.decoder import HEAD, READY, Limits, decode_uploads
from serving.errors import BusyError, ClientGoneError, DeadlineError, RequestError
from serving.metrics import observe_upload
from serving.same_core import waking_here
from serving.settings import Settings
from serving.shared_memory import SharedMemory

STARTED_WITHIN = 60.0  # seconds
PEEK_MICROSECONDS = 100_000  # between two looks whether the client is still there
ANSWER_BYTES = 65_536
PLACES = 4  # of each process for the arrays of an upload; a place is free again when the model has run
# Bytes that a decoder may take for each pixel. docs/serving.md has what the formats take.
PIXEL_BYTES = 14
# Bytes that it may take besides: the libraries' own, and copies of the file.
SPARE_BYTES, COPIES = 48_000_000, 2
UNKNOWN = 255  # multiprocessing's exit code for a process whose parent, the forkserver, has ended before it

context = multiprocessing.get_context("forkserver")
starting = threading.Lock()
log = logging.getLogger("serving")


class DecoderError(ReleaseError):
    """A process that decodes did not start."""


class RemoteError(Exception):
    """What data.py raised in another process and is no fault of the upload; its text is the traceback there."""


@dataclass(frozen=True)
class Prepared:
    """The model's inputs for an upload, with a batch axis. Only pictures have a size: height and width."""

    inputs: Arrays
    size: tuple[int, ...]


def decode_memory(settings: Settings) -> int:
    """Return how many bytes the decoding of one upload may take."""
    return PIXEL_BYTES * settings.pixels + SPARE_BYTES + COPIES * settings.upload_bytes


class Decoders:
    """The processes that decode for a server, one for each thread that calls `prepare`."""

    def __init__(self, model: str, settings: Settings, count: int) -> None:
        """Start processes for `count` threads, and wait until all are ready. Raises DecoderError if one is not."""
        limits = Limits(
            formats=tuple(settings.formats.split(",")),
            pixels=settings.pixels,
            memory=decode_memory(settings),
            tensor_bytes=settings.tensor_bytes,
        )
        context.set_forkserver_preload(["serving.decoder"])
        self.all = [Decoder(model, limits) for _ in range(count)]
        for decoder in self.all:
            decoder.start()
        for decoder in self.all:
            decoder.expect_ready()
        self.without_thread = iter(self.all)
        self.of_thread = threading.local()

    def prepare(self, content: bytes, deadline: float, gone: Callable[[], bool], budget: CpuBudget) -> Prepared:
        """Decode and preprocess an upload. `deadline` is a time of time.monotonic(), `budget` that of its request.

        Raises RequestError: 413 for more pixels, memory or CPU time than the limits, 415 for a format that is not
        allowed, 422 for bytes that cannot be read. Raises DeadlineError, ClientGoneError, BusyError if the system has
        ended the process or starts none, and RemoteError for a bug in data.py.
        """
        if not hasattr(self.of_thread, "decoder"):
            self.of_thread.decoder = next(self.without_thread)
        decoder: Decoder = self.of_thread.decoder  # always the same, whose memory is in the cache of the thread's core
        return decoder.prepare(content, deadline, gone, budget)

    def close(self) -> None:
        for decoder in self.all:
            decoder.stop()


class Decoder:
    """One process, and the one after it if it has to be ended."""

    def __init__(self, model: str, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.process: Any = None

    def start(self) -> None:
        """Start a process. Raises DecoderError if the system refuses a part of it; none is then left."""
        try:
            with ExitStack() as stack:
                channel, theirs = socket.socketpair()
                stack.callback(channel.close)
                stack.callback(theirs.close)
                shared = []
                for _ in range(1 + PLACES):  # the first is for the upload itself
                    shared.append(SharedMemory())
                    stack.callback(shared[-1].close)
                arguments = (self.model, self.limits, theirs, shared)
                process = context.Process(target=decode_uploads, args=arguments, daemon=True)
                with starting:
                    process.start()
                stack.pop_all()
        except (OSError, EOFError) as cause:  # EOFError if the forkserver ends at it
            reason = f"the system refuses it ({cause})" if str(cause) else "the system refuses it"
            raise DecoderError(f"a process that decodes uploads did not start: {reason}") from cause
        theirs.close()
        self.process, self.channel, self.shared = process, channel, shared
        self.unused = list(range(1, 1 + PLACES))

    def expect_ready(self) -> None:
        try:
            self.channel.settimeout(STARTED_WITHIN)
            ready = self.channel.recv(len(READY)) == READY
            self.channel.setblocking(True)
            # The kernel's own timeout saves a call of the system for each upload.
            self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, PEEK_MICROSECONDS))
        except OSError:
            ready = False
        if not ready:
            self.stop()
            raise DecoderError("a process that decodes uploads did not start: see above, or check the machine's limits")

    def stop(self) -> int | None:
        """End the process, and return its exit code."""
        if self.process is None:
            return None
        self.process.kill()
        self.process.join()
        code: int | None = self.process.exitcode
        self.process = None
        self.channel.close()
        for memory in self.shared:
            memory.close()
        return code

    def prepare(self, content: bytes, deadline: float, gone: Callable[[], bool], budget: CpuBudget) -> Prepared:
        """Do what `Decoders.prepare` says."""
        rest = budget.rest()
        try:
            place, spending = self.send(content, budget, rest)
            answer = orjson.loads(self.receive(deadline, gone, spending))
            arrays = {} if "status" in answer else self.take(answer["arrays"], place)
        except OSError:
            raise self.explain_end(self.stop(), budget) from None
        except BaseException:
            self.stop()
            raise
        if "status" in answer:
            self.unused.append(place)
            raise RemoteError(answer["text"]) if answer["status"] == 500 else RequestError(**answer)
        observe_upload(*answer["seconds"])
        return Prepared(arrays, tuple(answer["size"]))

    def send(self, content: bytes, budget: CpuBudget, seconds: float) -> tuple[int, Spending]:
        """Hand the upload to the process; start one if there is none, or the system has ended it since its last.

        It may take so many seconds of CPU time. Returns the place where the arrays will be, and what it takes.
        """
        for _ in range(2):
            if self.process is None:
                self.start_again()
            place = self.unused.pop()
            self.shared[0].write_bytes(content)
            try:
                spending = Spending(budget, self.process.pid)
                with waking_here(self.process.pid):
                    self.channel.sendall(HEAD.pack(len(content), place, seconds))
                return place, spending
            except OSError:
                log.warning("a process that decodes uploads had ended (%s): another one starts", self.stop())
        raise BusyError("processes that decode uploads end before they begin: try again in a second", 1)

    def start_again(self) -> None:
        """Start a process in place of one that has ended. Raises BusyError if that fails; the next upload tries it."""
        try:
            self.start()
            self.expect_ready()
        except DecoderError as cause:
            log.warning("%s: the next upload tries it again", cause)
            raise BusyError("no process that decodes uploads could be started: try again in a second", 1) from cause

    def receive(self, deadline: float, gone: Callable[[], bool], spending: Spending) -> bytes:
        """Return the answer. Raises OSError if the process ends, and for the deadline, CPU time and lost clients."""
        answer = b""
        while not answer.endswith(b"\n"):
            try:
                part = self.channel.recv(ANSWER_BYTES)
            except BlockingIOError:
                if gone():
                    raise ClientGoneError("the client has left") from None
                if time.monotonic() > deadline:
                    raise DeadlineError from None
                spending.note()
                spending.budget.rest()
            else:
                if not part:
                    raise ConnectionError("the process has ended")
                answer += part
        spending.note()
        return answer

    def take(self, layout: list[Any], place: int) -> Arrays:
        """Return the arrays in this place, which is used again when they are gone. The last place is always copied."""
        whole, arrays = self.shared[place].read(layout)
        if self.unused:
            weakref.finalize(whole, self.unused.append, place).atexit = False
            return arrays
        copies = {name: array.copy() for name, array in arrays.items()}
        self.unused.append(place)
        return copies

    def explain_end(self, code: int | None, budget: CpuBudget) -> ReleaseError:
        """Return the error for an upload at which the process ended by itself."""
        if code == -signal.SIGPROF:
            budget.spend(budget.seconds)  # for the files that are still to come
            return budget.exceeded()
        if code == -signal.SIGKILL:
            log.warning("the system has ended a process that decoded an upload: is there too little memory?")
            return BusyError("decoding was stopped by the system: try again in a second", 1)
        if code == UNKNOWN:
            log.warning("a process that decoded an upload ended, and so had the one that starts them: why is unknown")
            return BusyError("decoding was stopped for an unknown reason: try again in a second", 1)
        log.warning("a process that decoded an upload ended (%s)", code)
        return RequestError(422, "decoding it ended in a crash: save it anew")
