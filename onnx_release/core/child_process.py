"""Run work that may crash its process, hang or use up the memory in a process of its own.

Converters and ONNX Runtime are native code: on some graphs they end the process with a signal. What calls them here
gets an error instead.
"""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from onnx_release.core.command import describe_refusal, no_space
from onnx_release.core.errors import ReleaseError

Given = TypeVarTuple("Given")
Made = TypeVar("Made")
# A bound for work that hangs. A search with many `minutes` of a large network may take hours.
TIMEOUT_S = 4 * 3600.0
# Exit codes of a process that a person or the system ended. This one may not have the signal: Ctrl-C is ignored by what
# a shell runs in the background.
STOPPED = (-signal.SIGINT, -signal.SIGTERM)


class ChildError(ReleaseError):
    """The process ended without a result: a signal, a time that ran out, or an exception that is a bug."""


def run_in_child(work: Callable[[*Given], Made], *arguments: *Given, timeout_s: float = TIMEOUT_S) -> Made:
    """Call `work`, a function of a module, with `arguments` in a new process, and return its value.

    Arguments and value are pickled. Standard output and error are those of this process. Raises the ReleaseError that
    `work` raises, or the OSError where the disk is full or a file is refused, and ChildError if the process crashes,
    takes more than `timeout_s` seconds, or raises anything else. Raises KeyboardInterrupt if somebody stopped the
    process: that says nothing about the work.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=send_result, args=(sender, Path.cwd(), work, arguments))
    child.start()
    sender.close()  # or the end of the child would not end recv()
    try:
        if not receiver.poll(timeout_s):
            raise ChildError(f"{work.__name__} did not end within {timeout_s:g} s")
        done, value = receiver.recv()
    except EOFError:
        child.join()
        if child.exitcode in STOPPED:
            raise KeyboardInterrupt from None
        raise ChildError(f"{work.__name__} {describe_exit(child.exitcode)}") from None
    finally:
        child.kill()
        child.join()
        receiver.close()
    if not done:
        raise value
    return value


def send_result(sender: Connection, folder: Path, work: Callable[..., Made], arguments: tuple[object, ...]) -> None:
    """Send (True, the value of `work` in the working folder `folder`) or (False, its error)."""
    os.chdir(folder)  # multiprocessing goes to the folder in which Python was started
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says that it was stopped
    try:
        result: tuple[bool, object] = True, call_guarded(work, *arguments)
    except (ReleaseError, OSError) as error:
        result = False, error
    sender.send(result)
    sender.close()


def call_guarded(work: Callable[[*Given], Made], *arguments: *Given) -> Made:
    """Call `work` in this process. Raises what `run_in_child` raises, but for a crash or a time that runs out."""
    try:
        return work(*arguments)
    except ReleaseError:
        raise
    except MemoryError as error:
        raise ChildError(f"memory ran out ({error or 'no details'})") from error
    except Exception as error:  # a converter raises anything; what it says is the reason
        if is_of_the_system(error):
            raise
        if "--debug" in sys.argv:
            traceback.print_exc()
        raise ChildError(f"{type(error).__name__}: {error}") from error


def is_of_the_system(error: Exception) -> bool:
    """Return whether a person must mend the machine, as where the disk is full: the work itself is not to blame."""
    return isinstance(error, OSError) and bool(no_space(error) or describe_refusal(error))


def describe_exit(code: int | None) -> str:
    """Describe how a process ended that gave no result."""
    if code == -signal.SIGKILL and os.name == "posix":
        return "was killed; the system does so when memory runs out"
    if code is not None and code < 0:
        return f"crashed its process ({signal.Signals(-code).name})"
    return f"ended its process with exit code {code}"
