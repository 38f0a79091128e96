"""Define what goes through the engine: jobs, their parts, the request that waits for them, and calls of the model."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from onnxruntime import RunOptions

from onnx_release.core.types import Arrays


@dataclass(eq=False)
class Waiting:
    """The request that waits for jobs, of which `left` are not done yet.

    Since the last time that others had their turn, threads took `seconds` to prepare jobs of it. It is `slow` once that
    was more than a turn.
    """

    done: asyncio.Future[None]
    left: int
    seconds: float = 0.0
    slow: bool = False

    def fail(self, error: Callable[[], Exception]) -> None:
        if not self.done.done():
            self.done.set_exception(error())

    def settle(self) -> None:
        """Note that one more of the jobs is done."""
        self.left -= 1
        if not self.left and not self.done.done():  # a request may have ended early
            self.done.set_result(None)


@dataclass(eq=False)
class Job:
    """One item, or the tensors of one request, on its way through the engine.

    `prepare` gives the inputs with their batch axis; `finish` turns the outputs of the job's own rows into `value`.
    The first call of the model that ran the job began at `started` (time.perf_counter()); all its calls took
    `milliseconds`, and the largest had `batch` rows. `error` is what prepare, finish or the model raised.
    A job has one of the queue's `places` for each row; threads work on `busy` of them. Once it is `closed`, nobody
    waits for it, and it has only the busy ones.
    """

    prepare: Callable[[], Arrays]
    finish: Callable[[Arrays], Any]
    waiting: Waiting
    places: int = 1
    busy: int = 0
    closed: bool = False
    inputs: Arrays = field(default_factory=dict)
    outputs: list[Arrays | None] = field(default_factory=list)
    value: Any = None
    started: float = 0.0
    milliseconds: float = 0.0
    batch: int = 0
    error: BaseException | None = None

    @property
    def rows(self) -> int:
        return self.places

    def take_error(self) -> BaseException:
        """Return the error and forget it: its traceback refers to the job, and neither would be freed soon."""
        error, self.error = self.error, None
        assert error is not None
        return error


@dataclass(eq=False)
class Part:
    """Rows of a job that run in one call; `number` is its place among the job's. `alone` keeps others out of it."""

    job: Job
    number: int
    inputs: Arrays
    rows: int
    shape: tuple[Any, ...]  # only parts with the same one can share a call
    alone: bool


@dataclass(eq=False)
class Call:
    """A call of the model, of one part or of several with the same shape; the `options` are its own."""

    parts: list[Part]
    options: RunOptions = field(default_factory=RunOptions)

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def stop_if_unwanted(self) -> None:
        """Let ONNX Runtime end the call before its next operator if nobody waits for any of its jobs."""
        if all(part.job.closed for part in self.parts):
            self.options.terminate = True


def raise_first_error(jobs: list[Job]) -> None:
    """Raise the error of the first job that has failed, and forget those of the others."""
    failed = [job for job in jobs if job.error is not None]
    for job in failed[1:]:
        job.take_error()
    if failed:
        raise failed[0].take_error()
