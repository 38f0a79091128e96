"""Run requests on a few threads behind a bounded queue, several of them in one call of the model where it allows that.

A job is prepared (decoded, or parsed), divided into parts of at most a call's rows, run together with parts of other
jobs, and finished (turned into an answer). All of that happens on the engine's threads, so that the event loop only
moves bytes. The queue is bounded in rows. The event loop keeps the deadlines: whatever the threads do, a request that
has passed its own, or whose client has left, ends at once and gives back each place on which no thread works.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from onnx_release.core.types import Arrays
from serving.errors import BusyError, ClientGoneError, DeadlineError, RequestError
from serving.rows import Rows

TURN_SECONDS = 0.1  # as long as a few ordinary photographs take to prepare

Given = TypeVar("Given")
Result = TypeVar("Result")


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


class Engine:
    """Threads that prepare, run and finish jobs.

    `run` is the model, which any number of threads may call, and `rows` says how many rows a call has, and where. Each
    of the `threads` may run the model. On a `gpu` only one runs it at a time, and meanwhile the others prepare the next
    batch. There each batch is filled up to one size, and the outputs of the added rows are dropped, since a GPU needs a
    new plan for every new shape, and for every call if two shapes alternate. `queue` bounds the rows that wait or run.
    `observe` gets the rows of every call of the model, without those added, and its seconds. Jobs are prepared in the
    order in which they came, except that a request whose jobs took more than `turn` seconds (which may be set) lets all
    others go first: one with many slow files holds them up by no more than the job that a thread is at.
    `observe_places` (which may be set) gets the places of the queue that are taken, whenever that changes.
    """

    def __init__(
        self,
        run: Callable[[Mapping[str, np.ndarray]], Arrays],
        rows: Rows,
        *,
        threads: int,
        gpu: bool,
        queue: int,
        observe: Callable[[int, float], None],
    ) -> None:
        self.run, self.rows, self.gpu = run, rows, gpu
        self.queue, self.observe, self.runs = queue, observe, 1 if gpu else threads
        self.turn = TURN_SECONDS
        self.observe_places: Callable[[int], None] = lambda places: None
        self.raw: deque[Job] = deque()
        self.ready: deque[Part] = deque()
        self.changed = threading.Condition()
        self.pending = self.running = 0  # places of the queue that are taken, and calls of the model
        self.accepting, self.stopped = True, False
        self.threads = [threading.Thread(target=self.work, name=f"engine-{n}", daemon=True) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    # Called on the event loop.

    def check_room(self, jobs: int = 1) -> None:
        """Raise BusyError unless this many more jobs fit into the queue now, RequestError if they never can."""
        if not self.accepting:
            raise BusyError("the server is stopping: send the request to another one", 1)
        self.check_places(jobs)

    def check_places(self, more: int, held: int = 0) -> None:
        """Raise like `check_room` unless `more` places are free, for a job that holds others already."""
        if more + held > self.queue:
            raise RequestError(
                413, f"the request has {more + held} items, more than the queue of {self.queue}: send fewer at once"
            )
        if self.pending + more > self.queue:
            raise BusyError(f"the queue of {self.queue} is full: try again in a second", 1)

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
            self.count_places(len(jobs))
            self.raw.extend(jobs)
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
        failed = [job for job in jobs if job.error is not None]
        for job in failed[1:]:
            job.take_error()
        if failed:
            raise failed[0].take_error()
        return jobs

    def withdraw(self, jobs: Iterable[Job]) -> None:
        """Take those jobs that are not done out of the queue."""
        unfinished = [job for job in jobs if not job.closed]
        if unfinished:
            with self.changed:
                for job in unfinished:
                    self.close(job)
                self.changed.notify_all()  # other jobs may now be first

    def settle(self, waiting: Waiting) -> None:
        waiting.left -= 1
        if not waiting.left and not waiting.done.done():  # a request may have ended early
            waiting.done.set_result(None)

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

    # Called by whoever has the lock.

    def count_places(self, more: int) -> None:
        """Take places of the queue, or give back some if `more` is negative."""
        self.pending += more
        self.observe_places(self.pending)

    def close(self, job: Job) -> None:
        """Free the job's places, except those on which a thread works, which frees them when that ends."""
        if job.closed:
            return
        job.closed = True
        if job.places > job.busy:
            self.raw = deque(other for other in self.raw if other is not job)
            self.ready = deque(part for part in self.ready if part.job is not job)
        self.count_places(job.busy - job.places)

    def end_work(self, job: Job, places: int) -> None:
        """Note that a thread's work on these places of a job has ended."""
        job.busy -= places
        if job.closed:
            self.count_places(-places)

    def take_turns(self, waiting: Waiting, seconds: float) -> None:
        """Note that a job of this request took so long to prepare, and let others go first if its turn is over."""
        waiting.seconds += seconds
        if waiting.seconds > self.turn:
            waiting.seconds, waiting.slow = 0.0, True
            self.raw = deque(sorted(self.raw, key=lambda job: job.waiting is waiting))  # keeps the order otherwise

    def may_run(self) -> bool:
        """Return whether a part is ready and may be run.

        On a CPU it waits for the rest of its batch as long as every thread has jobs to prepare, so no core is idle. It
        does not wait for the jobs of a slow request.
        """
        if not self.ready or self.running == self.runs:
            return False
        alone = self.gpu or len(self.raw) < len(self.threads) or self.raw[0].waiting.slow
        return alone or sum(part.rows for part in self.ready) >= self.rows.most

    def take_batch(self) -> list[Part]:
        """Take the part that has been ready for longest, and the next ones that can share its call."""
        batch = [self.ready.popleft()]
        rows, alone = batch[0].rows, batch[0].alone
        while self.ready and not alone:
            part = self.ready[0]
            if part.shape != batch[0].shape or rows + part.rows > self.rows.most or part.alone:
                break
            batch.append(self.ready.popleft())
            rows += part.rows
        for part in batch:
            part.job.busy += part.rows
        return batch

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
                job.busy = 1
        if job is not None:
            self.prepare(job)
        else:
            self.run_batch(batch)
        return True

    def prepare(self, job: Job) -> None:
        """Prepare a job, and make its parts ready to run."""
        start = time.perf_counter()
        parts, failed = attempt(self.divide, job)  # it fails in the model's data.py, usually; the request gets it
        seconds = time.perf_counter() - start
        with self.changed:
            self.take_turns(job.waiting, seconds)
            self.end_work(job, 1)
            if job.closed:
                return
            job.error = failed or self.take_places(job, sum(part.rows for part in parts or []))
            if parts and job.error is None:
                self.ready.extend(parts)
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

    def take_places(self, job: Job, rows: int) -> Exception | None:
        """Take a place for each row of a job that had one, or return why it cannot. The caller has the lock."""
        try:
            self.check_places(rows - job.places, job.places)
        except (BusyError, RequestError) as error:
            return error
        self.count_places(rows - job.places)
        job.places = rows
        return None

    def run_batch(self, batch: list[Part]) -> None:
        """Run parts of one shape in one call. If it fails, run each by itself, so that one does not fail the others."""
        outputs, failed = attempt(self.call, batch)
        again = batch if failed and len(batch) > 1 else []
        with self.changed:
            self.running -= 1  # before the jobs are delivered
            if failed and not again and not batch[0].job.closed:  # where nobody waits, nobody takes the error
                batch[0].job.error = failed
            for part in reversed(again):
                part.alone = True
                self.end_work(part.job, part.rows)
                if not part.job.closed:
                    self.ready.appendleft(part)
            if self.may_run():
                self.changed.notify()  # this thread is about to finish jobs
        if again:
            return
        done = [part.job for part, own in zip(batch, outputs or [], strict=False) if self.take_outputs(part, own)]
        with self.changed:
            for part in batch:
                self.end_work(part.job, part.rows)
        for job in [batch[0].job] if failed else done:
            self.deliver(job)  # together, so that the event loop wakes up once

    def call(self, batch: list[Part]) -> list[Arrays]:
        """Call the model once and return the outputs of each part's own rows."""
        rows = sum(part.rows for part in batch)
        inputs = batch[0].inputs
        missing = self.rows.most - rows if self.gpu and self.rows.split else 0
        if len(batch) > 1 or missing > 0:
            # Filled up with a copy of a row, which the model certainly takes.
            added = [self.rows.rows_of(inputs, self.rows.inputs, 0, 1)] * missing
            inputs = self.rows.join_inputs([part.inputs for part in batch] + added)
        start = time.perf_counter()
        outputs = self.run(inputs)
        seconds = time.perf_counter() - start
        self.observe(rows, seconds)
        for job in {part.job: None for part in batch}:
            job.started = job.started or start
            job.milliseconds += seconds * 1e3
            job.batch = max(job.batch, rows)
        if inputs is batch[0].inputs:
            return [outputs]  # whole, as they need not have rows
        found, place = [], 0
        for part in batch:
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
                self.ready.appendleft(part)

    def deliver(self, job: Job) -> None:
        """Give the job back to the event loop, and its places to the queue."""
        with self.changed:
            job.inputs, job.outputs = {}, []
            if job.closed:
                return
            self.close(job)
        with suppress(RuntimeError):  # the loop is closed, because the server's time to stop is over
            job.waiting.done.get_loop().call_soon_threadsafe(self.settle, job.waiting)


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
