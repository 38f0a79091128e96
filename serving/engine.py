"""Run requests on a few threads behind a bounded queue, several at once in one call of the model where that is allowed.

A job is prepared (decoded, or parsed), run together with others of its shape, and finished (turned into an answer).
All three happen on the engine's threads, so that the event loop does nothing but bytes. What waits is bounded; what
nobody waits for any more is dropped before it costs anything.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnx_release.errors import GraphError, ReleaseError

Arrays = dict[str, np.ndarray]


class Busy(ReleaseError):
    """The queue is full, or the server is going down; `seconds` is when to come again."""

    def __init__(self, text: str, seconds: int) -> None:
        super().__init__(text)
        self.seconds = seconds


class DeadlinePassed(ReleaseError):
    """The job waited longer than it may, and was not begun."""


class ClientGone(ReleaseError):
    """The connection closed before the job was begun; there is nobody to read this."""


@dataclass(eq=False)
class Job:
    """`prepare` gives the inputs with their batch axis, `finish` makes the result of the outputs of these rows.

    `deadline` is of time.monotonic(), `gone` says whether the client has left. `milliseconds` is how long the call of
    the model took in which the job was run, `batch` how many rows that had.
    """

    prepare: Callable[[], Arrays]
    finish: Callable[[Arrays], Any]
    deadline: float
    gone: Callable[[], bool]
    future: asyncio.Future[Any]
    inputs: Arrays = field(default_factory=dict)
    milliseconds: float = 0.0
    batch: int = 0

    @property
    def rows(self) -> int:
        return int(next(iter(self.inputs.values())).shape[0])

    @property
    def shape(self) -> tuple[Any, ...]:
        """What two jobs must have in common to be run at once."""
        return tuple((name, array.dtype, array.shape[1:]) for name, array in self.inputs.items())


class Engine:
    """`run` is the model: any number of threads may call it, with at most `max_batch` rows.

    `threads` work; at most `runs` of them are in the model at once. `queue` bounds the jobs that are waiting or
    running. `observe` gets the rows and the seconds of every call of the model.
    """

    def __init__(
        self,
        run: Callable[[Mapping[str, np.ndarray]], Arrays],
        max_batch: int,
        threads: int,
        runs: int,
        queue: int,
    ) -> None:
        self.run, self.max_batch, self.runs, self.queue = run, max_batch, runs, queue
        self.raw: deque[Job] = deque()
        self.ready: deque[Job] = deque()
        self.changed = threading.Condition()
        self.pending = self.running = 0
        self.stopping = False
        self.observe: Callable[[int, float], None] = lambda rows, seconds: None
        self.workers = [threading.Thread(target=self.work, name=f"engine-{n}", daemon=True) for n in range(threads)]
        for worker in self.workers:
            worker.start()
