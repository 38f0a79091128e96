"""Run requests on a few threads behind a bounded queue, several at once in one call of the model where that is allowed.

A job is prepared (decoded, or parsed), run together with others of its shape, and finished (turned into an answer).
All three happen on the engine's threads, so that the event loop does nothing but bytes. What waits is bounded, and what
nobody waits for any more is dropped before it costs anything.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnx_release.core.errors import ReleaseError
from onnx_release.core.types import Arrays
from serving.errors import RequestError


class BusyError(ReleaseError):
    """The queue is full, or the server is going down; `seconds` is when to come again."""

    def __init__(self, text: str, seconds: int) -> None:
        super().__init__(text)
        self.seconds = seconds


class DeadlineError(ReleaseError):
    """The job waited longer than it may, and was not begun."""


class ClientGoneError(ReleaseError):
    """The connection closed before the job was begun; there is nobody to read this."""


@dataclass(eq=False)
class Waiting:
    """Who waits for the jobs of a request: `left` of them are to come."""

    done: asyncio.Future[None]
    left: int


@dataclass(eq=False)
class Job:
    """`prepare` gives the inputs with their batch axis; `finish` makes `value` of the outputs of the job's own rows.

    `deadline` is of time.monotonic(), `gone` says whether the client has left. `started`, of time.perf_counter(), is
    that of the call of the model in which the job was run, `milliseconds` how long that took, `batch` how many rows it
    had. `alone` keeps others out of its call. `error` is what prepare, finish or the model raised.
    """

    prepare: Callable[[], Arrays]
    finish: Callable[[Arrays], Any]
    deadline: float
    gone: Callable[[], bool]
    waiting: Waiting
    inputs: Arrays = field(default_factory=dict)
    rows: int = 0
    value: Any = None
    started: float = 0.0
    milliseconds: float = 0.0
    batch: int = 0
    alone: bool = False
    error: BaseException | None = None

    @property
    def shape(self) -> tuple[Any, ...]:
        """What two jobs must have in common to be run at once."""
        return tuple((name, array.dtype, array.shape[1:]) for name, array in self.inputs.items())

    def take_error(self) -> BaseException:
        """The error, which the job no longer holds: its traceback holds the job, and neither would be freed soon."""
        error, self.error = self.error, None
        assert error is not None
        return error


class Engine:
    """`run` is the model: any number of threads may call it, with at most `max_batch` rows.

    `threads` work, and each may be in the model. On a `gpu` one at a time may, and while it does the others make the
    next batch ready. These are filled up to `max_batch` rows, whose outputs are dropped: there every new shape costs a
    plan, and two that take turns one for each call. `queue` bounds the jobs that are waiting or running. `observe` is
    told the rows, without those that only fill, and the seconds of every call of the model.
    """

    def __init__(
        self,
        run: Callable[[Mapping[str, np.ndarray]], Arrays],
        *,
        max_batch: int,
        threads: int,
        gpu: bool,
        queue: int,
        observe: Callable[[int, float], None],
    ) -> None:
        self.run, self.max_batch, self.gpu, self.runs = run, max_batch, gpu, 1 if gpu else threads
        self.queue, self.observe = queue, observe
        self.raw: deque[Job] = deque()
        self.ready: deque[Job] = deque()
        self.changed = threading.Condition()
        self.pending = self.running = 0
        self.accepting, self.stopped = True, False
        self.threads = [threading.Thread(target=self.work, name=f"engine-{n}", daemon=True) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    def check_room(self, jobs: int = 1) -> None:
        """Raise BusyError unless so many more jobs fit into the queue now, RequestError if they never do.

        Of the event loop's thread alone.
        """
        if not self.accepting:
            raise BusyError("the server is going down: send the request to another one", 1)
        if jobs > self.queue:
            raise RequestError(
                413, f"the request has {jobs} items, more than the queue of {self.queue}: send fewer at once"
            )
        if self.pending + jobs > self.queue:
            raise BusyError(f"the queue of {self.queue} is full: come again in a second", 1)

    async def submit_all(
        self,
        work: list[tuple[Callable[[], Arrays], Callable[[Arrays], Any]]],
        deadline: float,
        gone: Callable[[], bool],
    ) -> list[Job]:
        """The jobs of one request, each a (prepare, finish), all done, in their order.

        Raises BusyError at once if not all of them fit into the queue. Otherwise waits for all, and raises what the
        first one that failed did: what its prepare or finish raises, GraphError from the model, DeadlineError,
        ClientGoneError.
        """
        self.check_room(len(work))
        waiting = Waiting(asyncio.get_running_loop().create_future(), len(work))
        jobs = [Job(prepare, finish, deadline, gone, waiting) for prepare, finish in work]
        self.pending += len(jobs)
        with self.changed:
            self.raw.extend(jobs)
            self.changed.notify(len(jobs))
        await waiting.done
        failed = [job for job in jobs if job.error is not None]
        for job in failed[1:]:
            job.take_error()
        if failed:
            raise failed[0].take_error()
        return jobs

    async def submit(
        self,
        prepare: Callable[[], Arrays],
        finish: Callable[[Arrays], Any],
        deadline: float,
        gone: Callable[[], bool],
    ) -> Job:
        """One job, done. Raises as `submit_all`."""
        return (await self.submit_all([(prepare, finish)], deadline, gone))[0]

    async def drain(self, seconds: float) -> bool:
        """Take no more jobs, wait for those that are there and stop the threads; whether all were done in time."""
        self.accepting = False
        end = time.monotonic() + seconds
        while self.pending and time.monotonic() < end:
            await asyncio.sleep(0.01)
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        return not self.pending

    def work(self) -> None:
        """One thread. A step's names end with it, or a thread that waits would hold what it worked on last."""
        while self.step():
            pass

    def step(self) -> bool:
        """Wait for something to do and do it; False once the engine has stopped.

        What is ready runs before anything else is prepared, so that little lies between the two. A thread that makes a
        job ready looks for work itself: nobody else has to be woken.
        """
        with self.changed:
            while not (self.stopped or self.raw or self.may_run()):
                self.changed.wait()
            if self.stopped:
                return False
            batch, job = [], None
            if self.may_run():
                batch = self.take_batch()
                self.running += 1
            else:
                job = self.raw.popleft()
        if job is not None:
            self.prepare(job)
        else:
            self.run_batch(batch)
        return True

    def may_run(self) -> bool:
        """Whether a job is ready and may go into the model. Holds the lock.

        On a CPU it waits for the rest of its batch while the other threads too have enough to prepare: no core idles.
        """
        if not self.ready or self.running == self.runs:
            return False
        alone = self.gpu or len(self.raw) < len(self.threads)
        return alone or sum(job.rows for job in self.ready) >= self.max_batch

    def take_batch(self) -> list[Job]:
        """The job that has been ready for longest, and those after it that may run with it. Holds the lock."""
        batch: list[Job] = []
        rows = 0
        while self.ready:
            job = self.ready[0]
            if batch and (
                job.shape != batch[0].shape or rows + job.rows > self.max_batch or job.alone or batch[0].alone
            ):
                break
            self.ready.popleft()
            if not self.dropped(job):
                batch.append(job)
                rows += job.rows
        return batch

    def dropped(self, job: Job) -> bool:
        """Whether nobody waits for the job any more; it is given back."""
        if job.gone():
            job.error = ClientGoneError("the client has left")
        elif time.monotonic() > job.deadline:
            job.error = DeadlineError("the request waited longer than it may: come again when there is less load")
        else:
            return False
        self.deliver(job)
        return True

    def prepare(self, job: Job) -> None:
        """Make a job ready, unless nobody waits for it any more."""
        if self.dropped(job):
            return
        try:
            job.inputs = job.prepare()
            job.rows = len(next(iter(job.inputs.values())))
        except BaseException as error:  # of the model's data.py, in most cases; it belongs to the request
            job.error = error
            self.deliver(job)
            return
        with self.changed:
            self.ready.append(job)

    def run_batch(self, batch: list[Job]) -> None:
        """Run jobs of one shape in one call. If that fails, each by itself: one must not spoil the others."""
        outputs: list[Arrays] = []
        again: list[Job] = []
        try:
            outputs = self.call(batch) if batch else []
        except BaseException as error:
            if len(batch) == 1:
                batch[0].error = error
            else:
                batch, again = [], batch
        with self.changed:
            self.running -= 1  # before anybody hears of it
            for job in reversed(again):
                job.alone = True
                self.ready.appendleft(job)
            if self.may_run():
                self.changed.notify()  # this thread makes answers first
        for job, own in zip(batch, outputs, strict=False):
            self.finish(job, own)
        for job in batch:
            self.deliver(job)  # all at once, so that the event loop wakes up once

    def call(self, batch: list[Job]) -> list[Arrays]:
        """One call of the model; the outputs of each job's own rows."""
        rows = sum(job.rows for job in batch)
        inputs = batch[0].inputs
        missing = self.max_batch - rows if self.gpu else 0
        if len(batch) > 1 or missing > 0:
            # Filled up with a row that is there already, which the model can take for sure.
            parts = [job.inputs for job in batch] + [{name: array[:1] for name, array in inputs.items()}] * missing
            inputs = {name: np.concatenate([part[name] for part in parts]) for name in inputs}
        start = time.perf_counter()
        outputs = self.run(inputs)
        seconds = time.perf_counter() - start
        self.observe(rows, seconds)
        for job in batch:
            job.started, job.milliseconds, job.batch = start, seconds * 1e3, rows
        if inputs is batch[0].inputs:
            return [outputs]  # which need not have the batch's rows: then a job is alone, and nothing is filled up
        found, place = [], 0
        for job in batch:
            found.append({name: array[place : place + job.rows] for name, array in outputs.items()})
            place += job.rows
        return found

    def finish(self, job: Job, outputs: Arrays) -> None:
        try:
            job.value = job.finish(outputs)
        except BaseException as error:
            job.error = error

    def deliver(self, job: Job) -> None:
        """Give the job back to the event loop, which counts it down. What it was made of is freed."""
        job.inputs = {}
        with suppress(RuntimeError):  # the loop is closed: the server's time to stop was over
            job.waiting.done.get_loop().call_soon_threadsafe(self.settle, job.waiting)

    def settle(self, waiting: Waiting) -> None:
        self.pending -= 1
        waiting.left -= 1
        if not waiting.left and not waiting.done.done():  # a request may have been cancelled
            waiting.done.set_result(None)
