"""Start a stage or a tool, and end it with a message and an exit code.

The exit codes are
0      done,
1      an error: one message says what is wrong and what to do. --debug shows the traceback; a bug always shows it,
130    Ctrl-C: one line (128 + SIGINT, as a shell reports a program that the signal ended), or
141    the reader of the output has gone, as in `... | head -1`: nothing is printed (128 + SIGPIPE).
"""

import argparse
import errno
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onnx_release.core.addresses import model_of
from onnx_release.core.errors import ReleaseError
from onnx_release.core.paths import METRICS

INTERRUPTED = 128 + signal.SIGINT
UNREAD = 128 + 13  # SIGPIPE, which Windows does not have

# A full disk gives ENOSPC, a full quota EDQUOT, and a limit on the size of a file EFBIG.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# The message of Python's tempfile if all of its folders are full or cannot be written.
NO_TEMPORARY = "No usable temporary directory found"
DENIED = "change its owner or its permissions, or run this as the user that it belongs to"
IN_THE_WAY = "move away the file or folder of that name, or a file above it where a folder should be"
DISK_FAILS = "the disk or the network drive fails: `dmesg` may say why; work in a folder on another one"
# What a person can do about an error of the system, in general and at a path. Any other OSError is a bug.
REMEDIES = {
    errno.EMFILE: "allow more open files, `ulimit -n 4096`, and run it again",
    errno.ENFILE: "the machine has too many open files: end other programs",
    errno.ENOMEM: "free some memory, and run it again",
}
PATH_REMEDIES = {
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.EROFS: "it is read-only: mount it writable, or work in a copy of the repository elsewhere",
    errno.ENOTDIR: IN_THE_WAY,
    errno.EEXIST: IN_THE_WAY,
    errno.EISDIR: IN_THE_WAY,
    errno.ENAMETOOLONG: "shorten the name, or move the repository to a folder with a shorter path",
    errno.ELOOP: "a symbolic link leads back to itself: remove it",
    errno.EBUSY: "end the program that uses it; a mount point cannot be replaced: mount a folder above it",
    errno.EIO: DISK_FAILS,
    errno.ESTALE: DISK_FAILS,
}


def die_of_ctrl_c_until_main() -> None:
    """Let Ctrl-C end `python -m` at once and without a traceback until `run_tool` takes over.

    The packages stages and tools call it before they import libraries, which takes seconds.
    """
    # argv[0] is "-m" only while Python looks for the module, not in a test or in a process of a pool.
    if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Ignore Ctrl-C within the block, and for good in the processes that the block starts."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_stage(main: Callable[..., None], variants: Sequence[str] = ()) -> None:
    """Run the `main` of a stage on the model that the command line names, and on one of `variants` if there are any."""
    parser = argparse.ArgumentParser(
        description=sys.modules[main.__module__].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a folder below models/")
    if variants:
        parser.add_argument("variant", choices=variants)
    names = ("model", "variant") if variants else ("model",)
    run_tool(lambda arguments: main(*(getattr(arguments, name) for name in names)), parser)


def run_tool(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Run a tool's `main` on the parsed command line, with --debug added to it.

    Raises SystemExit with the codes above. An error that the user can fix is one message on standard error. Any other
    is a bug and keeps its traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    open_closed_output()
    with quiet_if_unread():
        try:
            try:
                main(parser.parse_args())
            finally:
                sys.stdout.flush()  # or Python does it at exit, and prints a message of its own
        except ReleaseError as error:
            fail(no_space(error) or str(error))
        except MemoryError as error:
            fail(f"memory ran out ({error or 'no details'}): free some, or use fewer or smaller samples")
        except Exception as error:
            message = no_space(error) or (describe_refusal(error) if isinstance(error, OSError) else None)
            if message is None:
                raise
            fail(message)
        except KeyboardInterrupt as interrupt:
            fail(str(interrupt) or "stopped", INTERRUPTED)


def open_closed_output() -> None:
    """Let what is printed go nowhere where standard output or error was closed before the start.

    There Python has None, which not all that print expect: argparse of Python 3.11.2 does not.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (open as long as the process runs)


@contextmanager
def quiet_if_unread() -> Iterator[None]:
    """Exit with UNREAD and print nothing if the reader of the block's output has gone."""
    try:
        yield
    except BrokenPipeError:
        unread = [stream for stream in (sys.stdout, sys.stderr) if is_unread(stream.fileno())]
        if not unread:
            raise  # another pipe, which is a bug
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in unread:
            os.dup2(nowhere, stream.fileno())
        sys.exit(UNREAD)


def is_unread(descriptor: int) -> bool:
    """Return whether the descriptor is a pipe whose other end is closed."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


def no_space(error: BaseException) -> str | None:
    """Return a message if a full disk is the error or one of its causes, else None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            name = cause.filename2 or cause.filename  # a copy has both: from where, and to where
            where = f" while writing {name}" if name else ""
            return f"no space left{where} ({cause.strerror}): free some and run it again"
        if NO_TEMPORARY in str(cause):
            return (
                f"no folder for temporary files can be written ({cause}): free some space, or name a folder in the "
                "environment variable TMPDIR, and run it again"
            )
        cause = cause.__cause__
    return None


def describe_refusal(error: OSError) -> str | None:
    """Return what the system refused, at which path, and what to do; None if it is a bug."""
    name = error.filename2 or error.filename  # as in `no_space`
    if error.errno in REMEDIES:
        return f"{error.strerror}: {REMEDIES[error.errno]}"
    if name and error.errno in PATH_REMEDIES:
        return f"{name}: {error.strerror}: {PATH_REMEDIES[error.errno]}"
    return None


def fail(message: str, code: int = 1) -> None:
    """Print the message, with --debug after the traceback, and exit."""
    if "--debug" in sys.argv:
        traceback.print_exc()
    lines = [message if code == INTERRUPTED else f"error: {message}"]
    if "DVC_STAGE" in os.environ:
        lines.append(how_to_bring_back(os.environ["DVC_STAGE"]))
    # In one write, also where Python does not buffer: the processes of a server may fail at the same time.
    print("".join(f"{line}\n" for line in lines), end="", file=sys.stderr)
    sys.exit(code)


def how_to_bring_back(stage: str) -> str:
    """Return a note on the earlier outputs of a stage, which DVC deletes before it runs the stage.

    It leaves other models as they are. `make repro` brings the outputs back by itself.
    """
    model = model_of(stage)
    metrics = f" and `git restore {METRICS}/{model}`" if model else ""
    return (
        f"note: DVC removed this stage's earlier outputs before the run; to bring them back, use `dvc checkout {stage}`"
        f"{metrics}"
    )


def path_with_python() -> str:
    """Return the environment variable PATH with the folder of this Python first, where `make` puts it, too.

    A stage is run as `python -m ...`, and with another Python it would not find its packages.
    """
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
