"""How a stage or a tool starts and how it fails: one message and exit code 1, or the traceback with --debug."""

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Callable

from onnx_release.errors import ReleaseError, StorageError

# EFBIG is what a file-size limit gives where a full disk gives ENOSPC and a full quota EDQUOT.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How Python's tempfile says that all of its folders are full, or may not be written.
NO_TEMPORARY = "No usable temporary directory found"


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage script's `main`; its only option is --debug."""
    parser = argparse.ArgumentParser(description=sys.modules[main.__module__].__doc__)
    run_tool(lambda _: main(), parser)


def run_tool(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Run a tool's `main` on the parsed command line, to which --debug is added.

    Exits with code 1 after any error. One that the user can mend is a single message on standard error; any
    other is a bug and keeps its traceback.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args()
    try:
        main(arguments)
    except Exception as error:
        known = no_space(error) or error
        if not isinstance(known, ReleaseError):
            raise
        fail(known, arguments.debug)


def no_space(error: BaseException) -> StorageError | None:
    """What to say if a full disk is the error or among its causes, whatever else was blamed for it; None if not."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            name = cause.filename2 or cause.filename  # a copy names where from, and then where to
            where = f" while writing {name}" if name else ""
            return StorageError(f"no space left{where} ({cause.strerror}): free some and run it again")
        if NO_TEMPORARY in str(cause):
            return StorageError(
                f"no folder for temporary files can be written ({cause}): free some space, or name a folder in the "
                "environment variable TMPDIR, and run it again"
            )
        cause = cause.__cause__
    return None


def fail(error: ReleaseError, debug: bool) -> None:
    """Print what happened and exit with code 1."""
    if debug:
        traceback.print_exc()
    print(f"error: {error}", file=sys.stderr)
    if "DVC_STAGE" in os.environ:
        # DVC deletes a stage's outputs before it runs the stage; `make repro` brings them back by itself.
        print(
            "note: DVC removed this stage's earlier outputs before the run; "
            "`dvc checkout` and `git restore metrics` bring them back",
            file=sys.stderr,
        )
    sys.exit(1)
