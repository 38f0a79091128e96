"""Have a process wake up on the core of the thread that waits for it.

The two never run at once, so together they are like one thread. The scheduler does not know that. It places each by
itself, and with as many such pairs as cores it often has two of them on one core, and none on another: the server then
answers fewer uploads a second.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Only Linux has it. Without PyDLL, Python's lock would change hands for a call of less than a microsecond.
current_core: Callable[[], int] | None = getattr(ctypes.PyDLL(None), "sched_getcpu", None)


@contextmanager
def waking_here(process: int) -> Iterator[None]:
    """Let the process with this id, if the block wakes it up, begin on the core that the calling thread is on.

    After the block it may run wherever the thread may, so the scheduler can move it at any time. Where the system does
    not allow this, it only runs the block.
    """
    if current_core is None:
        yield
        return
    everywhere = os.sched_getaffinity(0)
    with suppress(OSError):
        os.sched_setaffinity(process, (current_core(),))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(process, everywhere)
