"""Run a contender in a process of its own, so that no idle thread pool of another spins beside it.

The process gets requests over a pipe and answers with plain numbers.
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
from onnx_release.core.types import Arrays
from onnx_release.timing.contenders import Call, Contender, prepare
from onnx_release.timing.interference import disturbed, read_cpu_times

# Warming up ends once the median of a window of calls is more than this share of the best window before it.
STEADY = 0.97
WINDOW_CALLS, WINDOW_SECONDS = 3, 0.05
WARM_UP_SECONDS = 10.0
# A process that is told to end has this long before it is killed.
END_SECONDS = 5.0
# glibc gives freed memory back to the kernel and takes it again in the next call. How much depends on where the heap
# lies, which makes PyTorch slower or faster for the whole life of a process (benchmarks/page_faults.py). So that chance
# does not decide, every contender keeps its memory. Only glibc reads these; its largest threshold for mmap is 32 MiB.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


@dataclass(frozen=True)
class Loaded:
    """The start of a contender: seconds to load its file, without imports, and then seconds of its first call.

    `provider` and `note` are those of contenders.LoadedContender.
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
    """Set the environment of processes that are started in the block: KEEP_MEMORY, and an empty torch.compile cache."""
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
    """Start processes that do not import the running script, whose libraries would count as their memory."""
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
        self.process = context.Process(target=run_contender, args=(contender, batches, child), daemon=True)
        with without_script(), without_ctrl_c():  # Ctrl-C goes to all processes of a terminal; this one ends the others
            self.process.start()
        self.watched = psutil.Process(self.process.pid)  # tells it from a later process with the same number
        child.close()

    def __enter__(self) -> "ContenderProcess":
        return self

    def __exit__(self, *_: object) -> None:
        started = self.children()  # before the process ends
        with suppress(OSError):
            self.pipe.send(("end",))
        self.process.join(END_SECONDS)  # torch.compile has semaphores to give back
        self.stop(started)

    def children(self) -> list[psutil.Process]:
        """Return the processes that it has started, directly or not; none if it has ended."""
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
        """Return the answer to a request; see `run_contender`. Raises BenchmarkError like `answer`."""
        with suppress(OSError):  # the process has died; answer() says so
            self.pipe.send(request)
        return self.answer()

    def answer(self) -> Any:
        """Return the next answer. Raises BenchmarkError if the process failed, hangs or has died."""
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
        return "it has closed its pipe and still runs"
    if exit_code < 0:
        return f"it crashed with signal {-exit_code}"
    return f"it ended with exit code {exit_code}"


def run_contender(contender: Contender, batches: list[Arrays], pipe: Connection) -> None:
    """Answer requests in the contender's process until it is told to end.

    It sends "ready" once the framework is imported. Then ("load",) is answered with Loaded, ("warm_up",) with the
    number of calls it took, ("turn", seconds) with a Turn, and ("memory",) with the peak resident memory in bytes;
    ("end",) ends the process.
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
        calls = TimedCalls(ready.call, batches, ready.cores)
        while True:
            request = pipe.recv()
            if request[0] == "memory":
                pipe.send(peak_memory_bytes())
            elif request[0] == "warm_up":
                pipe.send(warm_up(calls.timed))
            elif request[0] == "turn":
                pipe.send(calls.take_turn(request[1]))
            else:
                return
    except Exception as error:  # the parent puts it into the contender's row
        with suppress(OSError):  # the parent has ended first
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


class TimedCalls:
    """Timed calls of one contender over its batches in turn."""

    def __init__(self, call: Call, batches: list[Arrays], cores: int) -> None:
        self.call, self.batches, self.cores, self.position = call, batches, cores, 0

    def timed(self) -> float:
        """Return the seconds of one call. Raises ValueError if it returns NaN."""
        batch = self.batches[self.position % len(self.batches)]
        self.position += 1
        start = time.perf_counter()
        outputs = self.call(batch)
        seconds = time.perf_counter() - start
        refuse_nan(outputs)
        return seconds

    def take_turn(self, seconds: float) -> Turn:
        """Take a turn of `seconds`, without its first call, which finds another contender's data in the caches."""
        self.timed()
        latencies: list[float] = []
        before = read_cpu_times()
        while not latencies or time.perf_counter() < before.clock + seconds:
            latencies.append(self.timed())
        return Turn(latencies, disturbed(before, read_cpu_times(), self.cores, psutil.cpu_count() or 1))


def warm_up(timed: Callable[[], float]) -> int:
    """Call `timed`, which returns a call's seconds, until it gets no faster or for WARM_UP_SECONDS; count the calls."""
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
    """Raise ValueError for NaN in the outputs: the speed of a wrong answer means nothing."""
    if any(np.isnan(array).any() for array in outputs if array.dtype.kind == "f"):
        raise ValueError("the outputs have NaN")


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # Not getrusage: it starts with the memory of the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
