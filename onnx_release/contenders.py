"""The processes that the benchmark times: one contender each, so that no idle thread pool of another spins beside it.

A worker is asked over a pipe and answers with plain numbers. Only a torch contender imports torch.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from onnx_release.errors import BenchmarkError

Arrays = dict[str, np.ndarray]
Call = Callable[[Arrays], Any]


@dataclass(frozen=True)
class Contender:
    """What to time. `kind` is "torch_eager", where `target` is the model's folder, or "onnx", where it is a file."""

    name: str
    kind: str
    target: str
    raw: Path
    threads: int


@dataclass(frozen=True)
class Loaded:
    """How the contender started: seconds to load it and to its first answer."""

    load_seconds: float
    first_run_seconds: float


class Worker:
    """A contender in a process of its own, idle unless it is asked. Use it in a `with` block."""

    def __init__(self, contender: Contender, batches: list[Arrays]) -> None:
        self.contender = contender
        context = get_context("spawn")
        self.pipe, child = context.Pipe()
        self.process = context.Process(target=serve, args=(contender, batches, child), daemon=True)
        self.process.start()
        child.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()

    def ask(self, request: tuple[Any, ...]) -> Any:
        self.pipe.send(request)
        return self.answer()

    def answer(self) -> Any:
        """The worker's next answer. Raises BenchmarkError with what went wrong in it, or if it has died."""
        try:
            value = self.pipe.recv()
        except (EOFError, ConnectionResetError) as cause:
            self.process.join()
            raise BenchmarkError(f"{self.contender.name} died with exit code {self.process.exitcode}") from cause
        if isinstance(value, Exception):
            raise BenchmarkError(f"{self.contender.name} cannot be measured: {value}") from value
        return value


def serve(contender: Contender, batches: list[Arrays], pipe: Connection) -> None:
    """The worker's side: load the contender, then take turns until the process is killed.

    Requests are ("turn", seconds), answered by the list of latencies in seconds, and ("memory",), answered by the
    peak resident memory in bytes.
    """
    try:
        start = time.perf_counter()
        call = load_onnx(contender) if contender.kind == "onnx" else load_torch(contender)
        loaded = time.perf_counter()
        call(batches[0])
        pipe.send(Loaded(loaded - start, time.perf_counter() - loaded))
        position = 0
        while True:
            request = pipe.recv()
            if request[0] == "memory":
                pipe.send(peak_memory_bytes())
                continue
            call(batches[position % len(batches)])  # untimed: the caches still hold another contender's weights
            latencies: list[float] = []
            end = time.perf_counter() + request[1]
            while not latencies or time.perf_counter() < end:
                batch = batches[position % len(batches)]
                position += 1
                before = time.perf_counter()
                call(batch)
                latencies.append(time.perf_counter() - before)
            pipe.send(latencies)
    except Exception as error:  # all of it goes to the parent, which names the contender
        pipe.send(error if type(error).__module__ == "builtins" else RuntimeError(f"{type(error).__name__}: {error}"))


def load_onnx(contender: Contender) -> Call:
    from onnx_release.session import open_session, run_session

    session = open_session(Path(contender.target), contender.threads)
    return lambda batch: run_session(session, batch)


def load_torch(contender: Contender) -> Call:
    import torch

    from onnx_release.network import load_network

    torch.set_num_threads(contender.threads)
    network = load_network(contender.target, contender.raw)

    def call(batch: Arrays) -> Any:
        with torch.inference_mode():
            return network(*(torch.from_numpy(array) for array in batch.values()))

    return call


def peak_memory_bytes() -> int:
    """The most resident memory that this process has had."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
