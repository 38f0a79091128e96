"""Whether other work took the cores that a contender needed while it was timed."""

import time
from dataclasses import dataclass

import psutil

# Cores that others may take beyond those that the contender leaves idle. Linux counts hundredths of a second, so less
# than this does not show in a turn of a few tenths, and nothing in a turn shorter than SECONDS.
ALLOWED = 0.2
SECONDS = 0.1


@dataclass(frozen=True)
class Look:
    """Seconds: of the clock, of CPU time of the whole machine, and of that of the contender's process."""

    clock: float
    machine: float
    own: float


def look() -> Look:
    """A look at the clocks, for the process that calls."""
    times = psutil.cpu_times()._asdict()
    # Guests are in `user` already; what a hypervisor gave to another machine (`steal`) is other work as well.
    idle = ("idle", "iowait", "guest", "guest_nice")
    machine = sum(seconds for kind, seconds in times.items() if kind not in idle)
    own = psutil.Process().cpu_times()
    return Look(time.perf_counter(), machine, own.user + own.system)


def disturbed(before: Look, after: Look, threads: int, cores: int) -> bool:
    """Whether others were at work on more of the machine's `cores` than the contender's `threads` leave idle."""
    seconds = after.clock - before.clock
    others = (after.machine - before.machine) - (after.own - before.own)
    return seconds >= SECONDS and others / seconds > max(cores - threads, 0) + ALLOWED
