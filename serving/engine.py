"""Run requests on a few threads behind a bounded queue, several of them in one call of the model where it allows that.

A job is prepared (decoded, or parsed), divided into parts of at most a call's rows, run together with parts of other
jobs, and finished (turned into an answer). All of that happens on the engine's threads, so that the event loop only
moves bytes. The queue is bounded in rows. The event loop keeps the deadlines: whatever the threads do, a request that
has passed its own, or whose client has left, ends at once and gives back each place on which no thread works.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np
from onnxruntime import RunOptions

from onnx_release.core.types import Arrays
from serving.errors import BusyError, ClientGoneError, DeadlineError
from serving.job_queue import JobQueue
from serving.jobs import Call, Job, Part, Waiting, raise_first_error
from serving.rows import Rows

__all__ = ["Engine", "Job"]  # what the routes need

Given = TypeVar("Given")
Result = TypeVar("Result")
Run = Callable[[Mapping[str, np.ndarray], RunOptions], Arrays]


class Engine:
    """Threads that prepare, run and finish jobs.

    `run` is the model, which any number of threads may call, and `rows` says how many rows a call has, and where. It
    gets options of its own, whose `terminate` is set once nobody waits for an answer of the call: every request in it
    is past its deadline, or its client has left. Each of the `threads` may run the model. On a `gpu` only one runs it
    at a time, and meanwhile the others prepare the next batch. There each batch is filled up to one size, and the
    outputs of the added rows are dropped, since a GPU needs a new plan for every new shape, and for every call if two
    shapes alternate. `queue` bounds the rows that wait or run. `observe` gets the rows of every call of the model that
    was not ended early, without those added, and its seconds.
    """

    def __init__(
        self, run: Run, rows: Rows, *, threads: int, gpu: bool, queue: int, observe: Callable[[int, float], None]
    ) -> None:
        self.run, self.rows, self.gpu, self.observe = run, rows, gpu, observe
        self.jobs = JobQueue(rows, queue, threads, gpu)
        self.changed = threading.Condition()
        self.accepting, self.stopped = True, False
        self.threads = [threading.Thread(target=self.work, name=f"engine-{n}", daemon=True) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Return how many rows wait or run."""
        return self.jobs.pending

    # Called on the event loop.

    def check_room(self, jobs: int = 1) -> None:
        """Raise BusyError unless this many more jobs fit into the queue now, RequestError if they never can."""
        if not self.accepting:
            raise BusyError("the server is stopping: send the request to another one", 1)
        self.jobs.check_room(jobs)

    async def submit(
        self,
        work: list[tuple[Callable[[], Arrays], Callable[[Arrays], Any]]],
        deadline: float,
        gone: asyncio.Future[None],
    ) -> list[Job]:
        """Run the jobs of one request, each a (prepare, finish), and return them, done, in their order.

        Raises BusyError at once if not all of them fit into the queue, DeadlineError at `deadline`, a time of
        time.monotonic(), and ClientGoneError when `gone` is done. Otherwise waits for all, and raises the error of the
        first one that failed: what its prepare or finish raises, or GraphError from the model. If it ends early, also
        because it is cancelled, the jobs give back their places, those on which a thread works when that ends.
        """
        seconds = deadline - time.monotonic()
        if gone.done():
            raise client_gone()
        if seconds <= 0:
            raise DeadlineError
        loop = asyncio.get_running_loop()
        waiting = Waiting(loop.create_future(), len(work))
        jobs = [Job(prepare, finish, waiting) for prepare, finish in work]
        with self.changed:
            self.check_room(len(jobs))
            self.jobs.add(jobs)
            self.changed.notify(len(jobs))
        timer = loop.call_later(seconds, waiting.fail, DeadlineError)
        left = partial(client_left, waiting)
        gone.add_done_callback(left)
        try:
            await waiting.done
        finally:
            timer.cancel()
            gone.remove_done_callback(left)
            self.withdraw(jobs)
        raise_first_error(jobs)
        return jobs

    def withdraw(self, jobs: Iterable[Job]) -> None:
        """Take those jobs that are not done out of the queue."""
        unfinished = [job for job in jobs if not job.closed]
        if unfinished:
            with self.changed:
                for job in unfinished:
                    self.jobs.close(job)
                self.changed.notify_all()  # other jobs may now be first

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

    # Called on the engine's threads.

    def work(self) -> None:
        """Run one thread. Each step is a call, so that a waiting thread keeps nothing of its last job in memory."""
        while self.step():
            pass

    def step(self) -> bool:
        """Wait for something to do and do it; return False once the engine has stopped.

        Ready parts run before others are prepared, so that they wait only briefly. A thread that has prepared a job
        looks for work itself, so no other thread has to be woken, unless there is more than one part.
        """
        with self.changed:
            while not (self.stopped or self.jobs.raw or self.jobs.may_run()):
                self.changed.wait()
            if self.stopped:
                return False
            call = self.jobs.begin_call() if self.jobs.may_run() else None
            job = self.jobs.take_job() if call is None else None
        if job is not None:
            self.prepare(job)
        elif call is not None:
            self.run_parts(call)
        return True

    def prepare(self, job: Job) -> None:
        """Prepare a job, and make its parts ready to run."""
        start = time.perf_counter()
        parts, failed = attempt(self.divide, job)  # it fails in the model's data.py, usually; the request gets it
        seconds = time.perf_counter() - start
        with self.changed:
            self.jobs.take_turns(job.waiting, seconds)
            self.jobs.end_work(job, 1)
            if job.closed:
                return
            job.error = failed or self.jobs.take_places(job, sum(part.rows for part in parts or []))
            if parts and job.error is None:
                self.jobs.ready.extend(parts)
                self.changed.notify(len(parts) - 1)
                return
        self.deliver(job)

    def divide(self, job: Job) -> list[Part]:
        inputs = job.prepare()
        parts = self.rows.divide(inputs)
        job.inputs, job.outputs = inputs, [None] * len(parts)
        return [self.make_part(job, number, part) for number, part in enumerate(parts)]

    def make_part(self, job: Job, number: int, inputs: Arrays) -> Part:
        shape = tuple((name, array.dtype, self.rows.shape_of_row(name, array)) for name, array in inputs.items())
        return Part(job, number, inputs, self.rows.count(inputs), shape, alone=not self.rows.shared)

    def run_parts(self, call: Call) -> None:
        """Run parts of one shape in one call. If it fails, run each by itself, so that one does not fail the others.

        A call that was ended early fails, too, but nobody waits for its jobs.
        """
        outputs, failed = attempt(self.call_model, call)
        first, again = call.parts[0].job, bool(failed) and len(call.parts) > 1
        with self.changed:
            self.jobs.calls.discard(call)  # before the jobs are delivered
            if again:
                self.jobs.put_back(call.parts)
            elif failed and not first.closed:  # where nobody waits, nobody takes the error
                first.error = failed
            if self.jobs.may_run():
                self.changed.notify()  # this thread is about to finish jobs
        if again:
            return
        done = [part.job for part, own in zip(call.parts, outputs or [], strict=False) if self.take_outputs(part, own)]
        with self.changed:
            for part in call.parts:
                self.jobs.end_work(part.job, part.rows)
        for job in [first] if failed else done:
            self.deliver(job)  # together, so that the event loop wakes up once

    def call_model(self, call: Call) -> list[Arrays]:
        """Call the model once and return the outputs of each part's own rows."""
        rows, parts = call.rows, call.parts
        inputs = parts[0].inputs
        missing = self.rows.most - rows if self.gpu and self.rows.split else 0
        if len(parts) > 1 or missing > 0:
            # Filled up with a copy of a row, which the model certainly takes.
            added = [self.rows.rows_of(inputs, self.rows.inputs, 0, 1)] * missing
            inputs = self.rows.join_inputs([part.inputs for part in parts] + added)
        start = time.perf_counter()
        outputs = self.run(inputs, call.options)
        seconds = time.perf_counter() - start
        self.observe(rows, seconds)
        for job in {part.job: None for part in parts}:
            job.started = job.started or start
            job.milliseconds += seconds * 1e3
            job.batch = max(job.batch, rows)
        if inputs is parts[0].inputs:
            return [outputs]  # whole, as they need not have rows
        found, place = [], 0
        for part in parts:
            found.append(self.rows.rows_of_outputs(outputs, place, place + part.rows))
            place += part.rows
        return found

    def take_outputs(self, part: Part, outputs: Arrays) -> bool:
        """Keep the outputs of a part; if they are the last of its job, finish it and return True."""
        job = part.job
        with self.changed:
            if job.closed:  # also because another part has failed
                return False
            job.outputs[part.number] = outputs
            if None in job.outputs:
                return False
        whole = [found for found in job.outputs if found is not None]
        if len(whole) > 1:
            try:
                outputs = self.rows.join_outputs(whole)
            except ValueError:
                self.run_whole(job)
                return False
        try:
            job.value = job.finish(outputs)
        except BaseException as error:
            job.error = error
        return True

    def run_whole(self, job: Job) -> None:
        """Run all rows of a job in one call, since the shape of the outputs depends on which rows a call has."""
        part = self.make_part(job, 0, job.inputs)
        part.alone, job.outputs = True, [None]
        with self.changed:
            if not job.closed:
                self.jobs.ready.appendleft(part)

    def deliver(self, job: Job) -> None:
        """Give the job back to the event loop, and its places to the queue."""
        with self.changed:
            job.inputs, job.outputs = {}, []
            if job.closed:
                return
            self.jobs.close(job)
        with suppress(RuntimeError):  # the loop is closed, because the server's time to stop is over
            job.waiting.done.get_loop().call_soon_threadsafe(job.waiting.settle)


def attempt(step: Callable[[Given], Result], given: Given) -> tuple[Result | None, BaseException | None]:
    """Return the result or the error of a step. The caller's own frame is then not in the error's traceback."""
    try:
        return step(given), None
    except BaseException as error:
        return None, error


def client_left(waiting: Waiting, _: asyncio.Future[None]) -> None:
    waiting.fail(client_gone)


def client_gone() -> ClientGoneError:
    return ClientGoneError("the client has left")
