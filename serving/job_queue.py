"""Keep the jobs of an engine in a bounded queue, and decide which of them is next.

Threads share it: whoever calls one of its methods has the engine's lock, except for `check_room`.
"""

from collections import deque
from collections.abc import Callable, Iterable

from serving.errors import BusyError, RequestError
from serving.jobs import Call, Job, Part, Waiting
from serving.rows import Rows

TURN_SECONDS = 0.1  # as long as a few ordinary photographs take to prepare


class JobQueue:
    """The jobs that wait to be prepared, the parts that wait for a call of the model, and the calls that run.

    It has `size` places, one for each row that waits or runs, of which `pending` are taken. At most `most_calls` run at
    once. Jobs are prepared in the order in which they came, except that a request whose jobs took more than `turn`
    seconds (which may be set) lets all others go first: one with many slow files holds them up by no more than the job
    that a thread is at. `observe_places` (which may be set) gets the places that are taken, whenever that changes.
    """

    def __init__(self, rows: Rows, size: int, threads: int, gpu: bool) -> None:
        self.rows, self.size, self.threads, self.gpu = rows, size, threads, gpu
        self.most_calls = 1 if gpu else threads
        self.turn = TURN_SECONDS
        self.observe_places: Callable[[int], None] = lambda places: None
        self.raw: deque[Job] = deque()
        self.ready: deque[Part] = deque()
        self.calls: set[Call] = set()
        self.pending = 0

    # Places.

    def check_room(self, more: int, held: int = 0) -> None:
        """Raise BusyError unless `more` places are free, for a job that has `held` already.

        Raises RequestError (413) if so many never are.
        """
        if more + held > self.size:
            raise RequestError(
                413, f"the request has {more + held} items, more than the queue of {self.size}: send fewer at once"
            )
        if self.pending + more > self.size:
            raise BusyError(f"the queue of {self.size} is full: try again in a second", 1)

    def count_places(self, more: int) -> None:
        """Take places, or give back some if `more` is negative."""
        self.pending += more
        self.observe_places(self.pending)

    def take_places(self, job: Job, rows: int) -> Exception | None:
        """Take a place for each row of a job that had one, or return why it cannot."""
        try:
            self.check_room(rows - job.places, job.places)
        except (BusyError, RequestError) as error:
            return error
        self.count_places(rows - job.places)
        job.places = rows
        return None

    def end_work(self, job: Job, places: int) -> None:
        """Note that a thread's work on these places of a job has ended."""
        job.busy -= places
        if job.closed:
            self.count_places(-places)

    # Jobs and parts.

    def add(self, jobs: list[Job]) -> None:
        """Let new jobs wait to be prepared, for which there is room."""
        self.count_places(len(jobs))
        self.raw.extend(jobs)

    def close(self, job: Job) -> None:
        """Free the job's places, except those on which a thread works, which frees them when that ends.

        A call of the model ends early once nobody waits for any of its jobs.
        """
        if job.closed:
            return
        job.closed = True
        if job.places > job.busy:
            self.raw = deque(other for other in self.raw if other is not job)
            self.ready = deque(part for part in self.ready if part.job is not job)
        for call in self.calls:
            call.stop_if_unwanted()
        self.count_places(job.busy - job.places)

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
        if not self.ready or len(self.calls) == self.most_calls:
            return False
        alone = self.gpu or len(self.raw) < self.threads or self.raw[0].waiting.slow
        return alone or sum(part.rows for part in self.ready) >= self.rows.most

    def take_job(self) -> Job:
        """Take the job that is to be prepared next."""
        job = self.raw.popleft()
        job.busy = 1
        return job

    def begin_call(self) -> Call:
        """Take the part that has been ready for longest, and the next ones that can share its call."""
        parts = [self.ready.popleft()]
        rows, alone = parts[0].rows, parts[0].alone
        while self.ready and not alone:
            part = self.ready[0]
            if part.shape != parts[0].shape or rows + part.rows > self.rows.most or part.alone:
                break
            parts.append(self.ready.popleft())
            rows += part.rows
        for part in parts:
            part.job.busy += part.rows
        call = Call(parts)
        self.calls.add(call)
        return call

    def put_back(self, parts: Iterable[Part]) -> None:
        """Let the parts of a call that failed run again, each by itself, unless nobody waits for them any more."""
        for part in reversed(list(parts)):
            part.alone = True
            self.end_work(part.job, part.rows)
            if not part.job.closed:
                self.ready.appendleft(part)
