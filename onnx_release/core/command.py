"""How a stage or a tool starts and how it ends.

It ends with the exit code
0      done,
1      one message that says what is wrong and what to do, with --debug after its traceback; a bug's is always shown,
130    Ctrl-C: one line (128 + SIGINT, what a shell gives for a program that the signal ended), or
141    nobody reads the output any more, as in `... | head -1`: nothing is printed (128 + SIGPIPE).
"""

import argparse
import errno
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from onnx_release.core.errors import ReleaseError

INTERRUPTED = 128 + signal.SIGINT
UNREAD = 128 + 13  # SIGPIPE, which Windows does not have

# EFBIG is what a file-size limit gives where a full disk gives ENOSPC and a full quota EDQUOT.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How Python's tempfile says that all of its folders are full, or may not be written.
NO_TEMPORARY = "No usable temporary directory found"
DENIED = "change its owner or its permissions, or run this as the user that it belongs to"
IN_THE_WAY = "move away what stands there, or a file above it where a folder belongs"
DISK_FAILS = "the disk or the network drive fails: `dmesg` may say why; work in a folder on another one"
# What a person does about what the system refuses, by itself or at a path. Any other OSError is a bug.
SCARCE = {
    errno.EMFILE: "allow more open files, `ulimit -n 4096`, and run it again",
    errno.ENFILE: "the machine has as many files open as it may: end other programs",
    errno.ENOMEM: "free some memory, and run it again",
}
REFUSED = {
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.EROFS: "it cannot be written to: mount it writable, or work in a copy of the repository that is",
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
    """Ctrl-C ends `python -m` at once and without a traceback until `run_tool` takes over.

    Called by the packages of what a person runs, before the libraries are imported, which takes seconds.
    """
    # argv[0] is "-m" while Python looks for the module, and neither in a test nor in a process of a pool.
    if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C do nothing within the block, and nothing ever in the processes that are started there."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_stage(main: Callable[[], None]) -> None:
    """Run the `main` of a script whose only option is --debug, as every stage is."""
    parser = argparse.ArgumentParser(
        description=sys.modules[main.__module__].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    run_tool(lambda _: main(), parser)


def run_tool(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Run a tool's `main` on the parsed command line, to which --debug is added.

    Raises SystemExit with the codes above. An error that the user can fix is a single message on standard error; any
    other is a bug and keeps its traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    with quiet_if_unread():
        try:
            try:
                main(parser.parse_args())
            finally:
                if sys.stdout:  # None where it was closed before the start
                    sys.stdout.flush()  # or Python does it once all is over, and complains in its own words
        except ReleaseError as error:
            fail(no_space(error) or str(error))
        except MemoryError as error:
            fail(f"memory ran out ({error or 'no details'}): free some, or take fewer or smaller samples")
        except Exception as error:
            message = no_space(error) or (refusal(error) if isinstance(error, OSError) else None)
            if message is None:
                raise
            fail(message)
        except KeyboardInterrupt as interrupt:
            fail(str(interrupt) or "stopped", INTERRUPTED)


@contextmanager
def quiet_if_unread() -> Iterator[None]:
    """End with UNREAD and print nothing if the block's output goes to a pipe that nobody reads any more."""
    try:
        yield
    except BrokenPipeError:
        unread = [stream for stream in (sys.stdout, sys.stderr) if stream and is_unread(stream.fileno())]
        if not unread:
            raise  # another pipe, which is a bug
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in unread:
            os.dup2(nowhere, stream.fileno())
        sys.exit(UNREAD)


def is_unread(descriptor: int) -> bool:
    """Whether it is a pipe whose other end is closed."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


def no_space(error: BaseException) -> str | None:
    """What to say if a full disk is the error or among its causes, whatever else was blamed for it; None if not."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            name = cause.filename2 or cause.filename  # a copy names where from, and then where to
            where = f" while writing {name}" if name else ""
            return f"no space left{where} ({cause.strerror}): free some and run it again"
        if NO_TEMPORARY in str(cause):
            return (
                f"no folder for temporary files can be written ({cause}): free some space, or name a folder in the "
                "environment variable TMPDIR, and run it again"
            )
        cause = cause.__cause__
    return None


def refusal(error: OSError) -> str | None:
    """What the system refused, at which path, and what to do; None for what only a bug can be."""
    name = error.filename2 or error.filename  # as in `no_space`
    if error.errno in SCARCE:
        return f"{error.strerror}: {SCARCE[error.errno]}"
    if name and error.errno in REFUSED:
        return f"{name}: {error.strerror}: {REFUSED[error.errno]}"
    return None


def fail(message: str, code: int = 1) -> None:
    """Print what happened, after its traceback with --debug, and exit."""
    if "--debug" in sys.argv:
        traceback.print_exc()
    print(message if code == INTERRUPTED else f"error: {message}", file=sys.stderr)
    if "DVC_STAGE" in os.environ:
        # DVC deletes a stage's outputs before it runs the stage; `make repro` brings them back by itself.
        print(
            "note: DVC removed this stage's earlier outputs before the run; "
            "`dvc checkout` and `git restore metrics` bring them back",
            file=sys.stderr,
        )
    sys.exit(code)
