"""Work in a child process: its value, its errors, and its crashes, which leave the parent as it was."""

import os
import signal
import time

import pytest

from onnx_release.core.child_process import ChildError, run_in_child
from onnx_release.core.errors import GraphError


def add(one: int, other: int) -> int:
    return one + other


def fail(message: str) -> None:
    raise GraphError(message)


def divide(number: int) -> float:
    return number / 0


def use_up_memory() -> None:
    raise MemoryError


def crash(code: int) -> None:
    os.kill(os.getpid(), code)
    time.sleep(60)


def hang() -> None:
    time.sleep(60)


def leave() -> None:
    os._exit(3)


def test_the_value_comes_back():
    assert run_in_child(add, 2, 3) == 5


@pytest.mark.parametrize(
    ("work", "arguments", "kind", "message"),
    [
        (fail, ("no such node",), GraphError, "^no such node$"),
        (divide, (1,), ChildError, "ZeroDivisionError: division by zero"),
        (use_up_memory, (), ChildError, "memory ran out"),
        (crash, (signal.SIGSEGV,), ChildError, "crash crashed its process .SIGSEGV."),
        (crash, (signal.SIGKILL,), ChildError, "crash was killed; the system does so when memory runs out"),
        (leave, (), ChildError, "leave ended its process with exit code 3"),
    ],
)
def test_an_error_or_a_crash_is_an_error_here(work, arguments, kind, message):
    with pytest.raises(kind, match=message):
        run_in_child(work, *arguments)


def test_work_that_hangs_is_ended():
    with pytest.raises(ChildError, match=r"hang did not end within 0\.5 s"):
        run_in_child(hang, timeout_s=0.5)


@pytest.mark.parametrize("code", [signal.SIGINT, signal.SIGTERM])
def test_work_that_somebody_stops_is_an_interruption_and_no_failure_of_the_work(code):
    with pytest.raises(KeyboardInterrupt):
        run_in_child(crash, code)
