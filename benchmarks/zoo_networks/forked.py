"""Run work in a process of its own that starts with PyTorch imported, with a limit of time and its output in a file.

A stage takes seconds to import what it needs, and a network of the zoo a second to run: a server that has imported the
packages, and of these alone, forks a process for each.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

PACKAGES = [
    "torch",
    "torch.onnx",
    "torch.export",
    "torch._dynamo",
    "onnxruntime",
    "onnxslim",
    "onnxscript",
    "scipy.stats",
]
TIMED_OUT = 124  # the exit code of `timeout`


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, negative for a signal, and what it wrote."""

    code: int
    output: str


def run_forked(work: Callable[..., None], *arguments: Any, folder: Path, seconds: float) -> Ended:
    """Call `work` in a new process whose working directory is `folder`, and end it after `seconds`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PACKAGES)
    log = folder / "zoo.log"
    process = context.Process(target=in_folder, args=(folder, log, work, arguments))
    process.start()
    try:
        process.join(seconds)
        code = TIMED_OUT if process.exitcode is None else process.exitcode
    finally:  # also where a person interrupts
        if process.exitcode is None:
            end(process)
    return Ended(code, log.read_text(errors="replace"))


def end(process: ForkServerProcess) -> None:
    """End a process and those that it has started."""
    with suppress(ProcessLookupError):  # it has no group of its own yet
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.kill()
    process.join()


def in_folder(folder: Path, log: Path, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Do the work in `folder`, with standard output and error in `log`."""
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        work(*arguments)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def run_module(module: str, *arguments: str) -> None:
    """Run `python -m module` with these arguments in this process."""
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
