"""Run requests on a few threads behind a bounded queue, several of them in one call of the model where it allows that.

A job is prepared (decoded, or parsed), run together with others of its shape, and finished (turned into an answer).
All three happen on the engine's threads, so that the event loop only moves bytes. The queue is bounded, and a job that
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

from onnx_release.core.types import Arrays
from serving.errors import BusyError, ClientGoneError, DeadlineError, RequestError


@dataclass(eq=False)
class Waiting:
    """The request that waits for jobs, of which `left` are not done yet."""

    done: asyncio.Future[None]
    left: int


@dataclass(eq=False)
class Job:
    """One item on its way through the engine.

    `prepare` gives the inputs with their batch axis; `finish` turns the outputs of the job's own rows into `value`.
    `deadline` is a time of time.monotonic(); `gone` says whether the client has left. The call of the model that ran
    the job began at `started` (time.perf_counter()), took `milliseconds`, and had `batch` rows. `alone` keeps other
    jobs out of its call. `error` is what prepare, finish or the model raised.
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
        """Names, dtypes and shapes without the batch; only jobs with the same ones can share a call."""
        return tuple((name, array.dtype, array.shape[1:]) for name, array in self.inputs.items())

    def take_error(self) -> BaseException:
        """Return the error and forget it: its traceback refers to the job, and neither would be freed soon."""
        error, self.error = self.error, None
        assert error is not None
        return error


class Engine:
    """Threads that prepare, run and finish jobs.

    `run` is the model, which any number of threads may call, with at most `max_batch` rows. Each of the `threads` may
    run it. On a `gpu` only one runs it at a time, and meanwhile the others prepare the next batch. There each batch is
    filled up to `max_batch` rows, and the outputs of the added rows are dropped, since a GPU needs a new plan for every
    new shape, and for every call if two shapes alternate. `queue` bounds the jobs that wait or run. `observe` gets the
    rows of every call of the model, without those added, and its seconds.
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
        """Raise BusyError unless this many more jobs fit into the queue now, RequestError if they never can.

        Only the event loop's thread may call it.
        """
        if not self.accepting:
            raise BusyError("the server is stopping: send the request to another one", 1)
        if jobs > self.queue:
            raise RequestError(
                413, f"the request has {jobs} items, more than the queue of {self.queue}: send fewer at once"
            )
        if self.pending + jobs > self.queue:
            raise BusyError(f"the queue of {self.queue} is full: try again in a second", 1)

    async def submit_all(
        self,
        work: list[tuple[Callable[[], Arrays], Callable[[Arrays], Any]]],
        deadline: float,
        gone: Callable[[], bool],
    ) -> list[Job]:
        """Run the jobs of one request, each a (prepare, finish), and return them, done, in their order.

        Raises BusyError at once if not all of them fit into the queue. Otherwise waits for all, and raises the error of
        the first one that failed: what its prepare or finish raises, GraphError from the model, DeadlineError or
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
        """Run one job and return it, done. Raises like `submit_all`."""
        return (await self.submit_all([(prepare, finish)], deadline, gone))[0]

    async def drain(self, seconds: float) -> bool:
        """Take no more jobs, wait for the present ones, and stop the threads; return whether all were done in time."""
        self.accepting = False
        end = time.monotonic() + seconds
        while self.pending and time.monotonic() < end:
            await asyncio.sleep(0.01)
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        return not self.pending

    def work(self) -> None:
        """Run one thread. Each step is a call, so that a waiting thread keeps nothing of its last job in memory."""
        while self.step():
            pass

    def step(self) -> bool:
        """Wait for something to do and do it; return False once the engine has stopped.

        Ready jobs run before others are prepared, so that they wait only briefly. A thread that has prepared a job
        looks for work itself, so no other thread has to be woken.
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
        """Return whether a job is ready and may be run. The caller has the lock.

        On a CPU a job waits for the rest of its batch as long as every thread has jobs to prepare, so no core is idle.
        """
        if not self.ready or self.running == self.runs:
            return False
        alone = self.gpu or len(self.raw) < len(self.threads)
        return alone or sum(job.rows for job in self.ready) >= self.max_batch

    def take_batch(self) -> list[Job]:
        """Take the job that has been ready for longest, and the next ones that can share its call.

        The caller has the lock.
        """
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
        """Give the job back if nobody waits for it any more, and return whether that is so."""
        if job.gone():
            job.error = ClientGoneError("the client has left")
        elif time.monotonic() > job.deadline:
            job.error = DeadlineError("the request waited past its deadline: try again when there is less load")
        else:
            return False
        self.deliver(job)
        return True

    def prepare(self, job: Job) -> None:
        """Prepare a job, unless nobody waits for it any more."""
        if self.dropped(job):
            return
        try:
            job.inputs = job.prepare()
            first = next(iter(job.inputs.values()))
            job.rows = max(len(first), 1) if first.ndim else 1  # where it has no batch, jobs share no call
        except BaseException as error:  # usually from the model's data.py; the request gets it
            job.error = error
            self.deliver(job)
            return
        with self.changed:
            self.ready.append(job)

    def run_batch(self, batch: list[Job]) -> None:
        """Run jobs of one shape in one call. If it fails, run each by itself, so that one does not fail the others."""
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
            self.running -= 1  # before the jobs are delivered
            for job in reversed(again):
                job.alone = True
                self.ready.appendleft(job)
            if self.may_run():
                self.changed.notify()  # this thread is about to finish jobs
        for job, own in zip(batch, outputs, strict=False):
            self.finish(job, own)
        for job in batch:
            self.deliver(job)  # together, so that the event loop wakes up once

    def call(self, batch: list[Job]) -> list[Arrays]:
        """Call the model once and return the outputs of each job's own rows."""
        rows = sum(job.rows for job in batch)
        inputs = batch[0].inputs
        missing = self.max_batch - rows if self.gpu else 0
        if len(batch) > 1 or missing > 0:
            # Filled up with a copy of a row, which the model certainly takes.
            parts = [job.inputs for job in batch] + [{name: array[:1] for name, array in inputs.items()}] * missing
            inputs = {name: np.concatenate([part[name] for part in parts]) for name in inputs}
        start = time.perf_counter()
        outputs = self.run(inputs)
        seconds = time.perf_counter() - start
        self.observe(rows, seconds)
        for job in batch:
            job.started, job.milliseconds, job.batch = start, seconds * 1e3, rows
        if inputs is batch[0].inputs:
            return [outputs]  # their rows need not be the batch's: such a job runs alone, and nothing is filled up
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
        """Free the job's inputs and give it back to the event loop, which counts it."""
        job.inputs = {}
        with suppress(RuntimeError):  # the loop is closed, because the server's time to stop is over
            job.waiting.done.get_loop().call_soon_threadsafe(self.settle, job.waiting)

    def settle(self, waiting: Waiting) -> None:
        self.pending -= 1
        waiting.left -= 1
        if not waiting.left and not waiting.done.done():  # a request may have been cancelled
            waiting.done.set_result(None)
