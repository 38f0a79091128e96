"""Tell whether other work took cores from a contender while it was timed."""

import time
from dataclasses import dataclass

import psutil

# Other work may take this many cores beyond those that the contender leaves idle. Linux counts hundredths of a second,
# so less does not show in a turn of a few tenths, and nothing shows in a turn shorter than SHORTEST_SECONDS.
ALLOWED_CORES = 0.2
SHORTEST_SECONDS = 0.1


@dataclass(frozen=True)
class CpuTimes:
    """Seconds of the clock, of the whole machine's CPU time, and of the CPU time of the contender's process."""

    clock: float
    machine: float
    own: float


def read_cpu_times() -> CpuTimes:
    """Read the clocks for the calling process."""
    times = psutil.cpu_times()._asdict()
    # Guests are in `user` already; what a hypervisor gave to another machine (`steal`) is other work as well.
    idle = ("idle", "iowait", "guest", "guest_nice")
    machine = sum(seconds for kind, seconds in times.items() if kind not in idle)
    own = psutil.Process().cpu_times()
    return CpuTimes(time.perf_counter(), machine, own.user + own.system)


def disturbed(before: CpuTimes, after: CpuTimes, busy: int, cores: int) -> bool:
    """Return whether other work used more of the machine's `cores` than a contender with `busy` ones leaves idle."""
    seconds = after.clock - before.clock
    others = (after.machine - before.machine) - (after.own - before.own)
    return seconds >= SHORTEST_SECONDS and others / seconds > max(cores - busy, 0) + ALLOWED_CORES
