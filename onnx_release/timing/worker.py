"""A contender in a process of its own, so that no idle thread pool of another spins beside it.

The process is asked over a pipe and answers with plain numbers.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import psutil

from onnx_release.core.command import without_ctrl_c
from onnx_release.core.errors import BenchmarkError
from onnx_release.core.hardware import available_cores
from onnx_release.core.types import Arrays
from onnx_release.timing.contenders import Call, Contender, prepare
from onnx_release.timing.interference import disturbed, look

# Warming up ends once a window of calls is not faster than the best before it by more than this.
STEADY = 0.97
WINDOW_CALLS, WINDOW_SECONDS = 3, 0.05
WARM_UP_SECONDS = 10.0
# What a process that is told to end has before it is killed.
END_SECONDS = 5.0
# glibc hands freed memory back to the kernel and takes it again in the next call, more or less of it by where the
# heap came to lie, and PyTorch is slower or faster for the whole life of a process (benchmarks/page_faults.py). So that
# a start does not decide, every contender keeps its memory. Read by glibc alone, which documents 32 MiB as the largest
# threshold for mmap.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


@dataclass(frozen=True)
class Loaded:
    """How the contender started: seconds from the file to ready, imports left out, and to its first answer after.

    `provider` and `note` as contenders.Ready has them.
    """

    load_seconds: float
    first_run_seconds: float
    provider: str = ""
    note: str = ""


@dataclass(frozen=True)
class Turn:
    """The latencies of a turn in seconds, and whether other work took cores from it."""

    latencies: list[float]
    disturbed: bool


@contextmanager
def worker_environment() -> Iterator[None]:
    """What the processes started within inherit: see KEEP_MEMORY; and torch.compile's cache starts out empty."""
    before = dict(os.environ)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ |= {**KEEP_MEMORY, "TORCHINDUCTOR_CACHE_DIR": folder}
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before


@contextmanager
def without_script() -> Iterator[None]:
    """Start processes that do not import the script that is running, whose libraries would count as their memory."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


class ContenderProcess:
    """The parent's side of a contender's process, which is idle unless it is asked. Use it in a `with` block."""

    def __init__(self, contender: Contender, batches: list[Arrays], timeout: float) -> None:
        self.name, self.timeout = contender.name, timeout
        context = get_context("spawn")
        self.pipe, child = context.Pipe()
        self.process = context.Process(target=serve, args=(contender, batches, child), daemon=True)
        with without_script(), without_ctrl_c():  # which goes to all processes of a terminal: this one ends the others
            self.process.start()
        self.watched = psutil.Process(self.process.pid)  # knows it from a later process of the same number
        child.close()

    def __enter__(self) -> "ContenderProcess":
        return self

    def __exit__(self, *_: object) -> None:
        started = self.children()  # while it can be asked for them
        with suppress(OSError):
            self.pipe.send(("end",))
        self.process.join(END_SECONDS)  # torch.compile has semaphores to give back
        self.stop(started)

    def children(self) -> list[psutil.Process]:
        """The processes that it has started, directly or not; none if it has ended."""
        try:
            return list(self.watched.children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def stop(self, started: list[psutil.Process] | None = None) -> None:
        """Kill the process, and those that it has started."""
        for child in started if started is not None else self.children():
            with suppress(psutil.NoSuchProcess):  # it has ended by itself
                child.kill()
        self.process.kill()
        self.process.join()

    def ask(self, *request: Any) -> Any:
        """The answer to a request; see `serve`. Raises BenchmarkError like `answer`."""
        with suppress(OSError):  # it has died, which the answer says
            self.pipe.send(request)
        return self.answer()

    def answer(self) -> Any:
        """Raises BenchmarkError with what went wrong in the process, or if it hangs or has died."""
        try:
            if not self.pipe.poll(self.timeout):
                raise BenchmarkError(f"it gave no answer within {self.timeout:g} s (benchmark.timeout_seconds)")
            value = self.pipe.recv()
        except (EOFError, OSError) as cause:
            self.process.join(END_SECONDS)
            raise BenchmarkError(describe_death(self.process.exitcode)) from cause
        if isinstance(value, Exception):
            raise BenchmarkError(str(value)) from value
        return value


def describe_death(exit_code: int | None) -> str:
    if exit_code == -9:
        return "it was killed (signal 9), which is what Linux does when memory runs out"
    if exit_code is None:
        return "it has closed its pipe and goes on"
    if exit_code < 0:
        return f"it crashed with signal {-exit_code}"
    return f"it ended with exit code {exit_code}"


def serve(contender: Contender, batches: list[Arrays], pipe: Connection) -> None:
    """The contender's side: take requests until the one to end.

    Answers "ready" once the framework is imported. Then ("load",) is answered by Loaded, ("warm_up",) by the number
    of calls it took, ("turn", seconds) by a Turn, and ("memory",) by the peak resident memory in bytes; ("end",) ends
    the process.
    """
    try:
        load = prepare(contender)
        pipe.send("ready")
        if pipe.recv() != ("load",):
            return
        start = time.perf_counter()
        ready = load()
        loaded = time.perf_counter()
        outputs = ready.call(batches[0])
        answered = time.perf_counter()
        refuse_nan(outputs)
        pipe.send(Loaded(loaded - start, answered - loaded, ready.provider, ready.note))
        threads = contender.runtime.intra_threads or available_cores()
        turns = Turns(ready.call, batches, threads)
        while True:
            request = pipe.recv()
            if request[0] == "memory":
                pipe.send(peak_memory_bytes())
            elif request[0] == "warm_up":
                pipe.send(warm_up(turns.timed))
            elif request[0] == "turn":
                pipe.send(turns.take(request[1]))
            else:
                return
    except Exception as error:  # all of it goes to the parent, which puts it into the contender's row
        with suppress(OSError):  # unless that has ended first
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


class Turns:
    """Calls of one contender over its batches, one after the other and round again."""

    def __init__(self, call: Call, batches: list[Arrays], threads: int) -> None:
        self.call, self.batches, self.threads, self.position = call, batches, threads, 0

    def timed(self) -> float:
        """Seconds of one call. Raises ValueError if it returns NaN."""
        batch = self.batches[self.position % len(self.batches)]
        self.position += 1
        start = time.perf_counter()
        outputs = self.call(batch)
        seconds = time.perf_counter() - start
        refuse_nan(outputs)
        return seconds

    def take(self, seconds: float) -> Turn:
        """A turn of `seconds`; its first call is left out, which finds another one's data in the caches."""
        self.timed()
        latencies: list[float] = []
        before = look()
        while not latencies or time.perf_counter() < before.clock + seconds:
            latencies.append(self.timed())
        return Turn(latencies, disturbed(before, look(), self.threads, psutil.cpu_count() or 1))


def warm_up(timed: Callable[[], float]) -> int:
    """Call `timed`, which gives a call's seconds, until it gets no faster or for WARM_UP_SECONDS; how many calls."""
    best, spent, calls = math.inf, 0.0, 0
    while spent < WARM_UP_SECONDS:
        window: list[float] = []
        while len(window) < WINDOW_CALLS or sum(window) < WINDOW_SECONDS:
            window.append(timed())
        calls += len(window)
        spent += sum(window)
        if median(window) > STEADY * best:
            break
        best = min(best, median(window))
    return calls


def refuse_nan(outputs: list[np.ndarray]) -> None:
    """Raises ValueError: an answer that is none has no speed."""
    if any(np.isnan(array).any() for array in outputs if array.dtype.kind == "f"):
        raise ValueError("the outputs hold NaN")


def peak_memory_bytes() -> int:
    """The most resident memory that this process has had."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # Not getrusage: it starts with the memory of the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
