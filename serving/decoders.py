"""Keep processes that decode and preprocess uploads, and end those that take too long.

Each of the engine's threads hands its upload to a process and waits. A process that reaches its limit of CPU time, its
request's deadline, or an upload whose client has left, is ended, and another one takes its place: a fork of a process
that has the libraries already, so this takes milliseconds. Arrays come back through shared memory.
"""

import json
import logging
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnx_release.core.errors import ReleaseError
from onnx_release.core.types import Arrays
from serving.decoder import READY, Limits, decode_uploads
from serving.errors import BusyError, ClientGoneError, DeadlineError, RequestError
from serving.settings import Settings
from serving.shared_arrays import SharedArrays

STARTED_WITHIN = 60.0  # seconds
PEEK_SECONDS = 0.1  # between two looks whether the client is still there
# Bytes that a decoder may take for each pixel. docs/serving.md has what the formats take.
PIXEL_BYTES = 14
# Bytes that it may take besides: the libraries' own, and copies of the file.
SPARE_BYTES, COPIES = 48_000_000, 2

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
    """The processes that decode for a server; any number of threads may call `prepare`."""

    def __init__(self, model: str, settings: Settings, count: int) -> None:
        """Start the processes, and wait until all of them are ready. Raises DecoderError if one does not start."""
        limits = Limits(
            formats=tuple(settings.formats.split(",")),
            pixels=settings.pixels,
            memory=decode_memory(settings),
            seconds=settings.decode_seconds,
            tensor_bytes=settings.tensor_bytes,
        )
        context.set_forkserver_preload(["serving.decoder"])
        self.all = [Decoder(model, limits) for _ in range(count)]
        for decoder in self.all:
            decoder.start()
        for decoder in self.all:
            decoder.expect_ready()
        self.free: queue.LifoQueue[Decoder] = queue.LifoQueue()
        for decoder in self.all:
            self.free.put(decoder)

    def prepare(self, content: bytes, deadline: float, gone: Callable[[], bool]) -> Prepared:
        """Decode and preprocess an upload. `deadline` is a time of time.monotonic().

        Raises RequestError: 413 for more pixels, memory or CPU time than the limits, 415 for a format that is not
        allowed, 422 for bytes that cannot be read. Raises DeadlineError, ClientGoneError, BusyError if the system has
        ended the process, and RemoteError for a bug in data.py.
        """
        decoder = self.free.get()
        try:
            return decoder.prepare(content, deadline, gone)
        finally:
            self.free.put(decoder)

    def close(self) -> None:
        for decoder in self.all:
            decoder.stop()


class Decoder:
    """One process, and the one after it if it has to be ended."""

    def __init__(self, model: str, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.process: Any = None

    def start(self) -> None:
        self.connection, theirs = context.Pipe()
        self.arrays = SharedArrays()
        with theirs, starting:
            arguments = (self.model, self.limits, theirs, self.arrays)
            self.process = context.Process(target=decode_uploads, args=arguments, daemon=True)
            self.process.start()

    def expect_ready(self) -> None:
        try:
            ready = self.connection.poll(STARTED_WITHIN) and self.connection.recv_bytes() == READY
        except (EOFError, OSError):
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
        self.connection.close()
        self.arrays.close()
        return code

    def prepare(self, content: bytes, deadline: float, gone: Callable[[], bool]) -> Prepared:
        """Do what `Decoders.prepare` says."""
        try:
            self.send(content)
            while not self.connection.poll(PEEK_SECONDS):
                if gone():
                    raise ClientGoneError("the client has left")
                if time.monotonic() > deadline:
                    raise DeadlineError("decoding was stopped at the deadline: try again with a smaller picture")
            answer = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise self.explain_end(self.stop()) from None
        except BaseException:
            self.stop()
            raise
        if "status" in answer:
            raise RemoteError(answer["text"]) if answer["status"] == 500 else RequestError(**answer)
        return Prepared(self.arrays.read(answer["arrays"]), tuple(answer["size"]))

    def send(self, content: bytes) -> None:
        """Hand the upload to the process; start one if there is none, or the system has ended it since its last."""
        if self.process is not None:
            try:
                self.connection.send_bytes(content)
                return
            except OSError:
                log.warning("a process that decodes uploads had ended (%s): another one starts", self.stop())
        self.start()
        self.expect_ready()
        self.connection.send_bytes(content)

    def explain_end(self, code: int | None) -> ReleaseError:
        """Return the error for an upload at which the process ended by itself."""
        if code == -signal.SIGPROF:
            seconds = f"{self.limits.seconds:g} seconds of CPU time"
            return RequestError(413, f"decoding it takes more than {seconds}: make it smaller, or save it anew")
        if code == -signal.SIGKILL:
            log.warning("the system has ended a process that decoded an upload: is there too little memory?")
            return BusyError("decoding was stopped by the system: try again in a second", 1)
        log.warning("a process that decoded an upload ended (%s)", code)
        return RequestError(422, "decoding it ended in a crash: save it anew")
