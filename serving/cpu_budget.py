"""Count the CPU time that the files of one request take, which several processes may decode at once."""

import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from serving.errors import RequestError


class CpuBudget:
    """The seconds of CPU time that all files of a request may take together. Any thread may spend of it."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.spent = seconds, 0.0
        self.lock = threading.Lock()

    def spend(self, seconds: float) -> None:
        with self.lock:
            self.spent += seconds

    def rest(self) -> float:
        """Return the seconds that are left. Raises RequestError (413) if none are."""
        rest = self.seconds - self.spent
        if rest <= 0:
            raise self.exceeded()
        return rest

    def exceeded(self) -> RequestError:
        return RequestError(
            413,
            f"to decode the files of the request takes more than {self.seconds:g} seconds of CPU time: "
            "make them smaller, save them anew, or send fewer at once",
        )


class Spending:
    """What a process takes of a budget from now on."""

    def __init__(self, budget: CpuBudget, pid: int) -> None:
        self.budget, self.clock = budget, cpu_clock(pid)
        self.noted = self.clock()

    def note(self) -> None:
        """Spend what the process has taken since the last time. Raises OSError if it has ended."""
        now = self.clock()
        self.budget.spend(now - self.noted)
        self.noted = now


def cpu_clock(pid: int) -> Callable[[], float]:
    """Return what gives the seconds of CPU time of a process so far; elsewhere than on Linux, of time itself."""
    if sys.platform == "linux":
        return partial(time.clock_gettime, ~pid << 3 | 2)  # what clock_getcpuclockid(3) gives for a process
    return time.monotonic
