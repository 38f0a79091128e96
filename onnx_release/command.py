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
    except ReleaseError as error:
        fail(error, arguments.debug)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        name = error.filename2 or error.filename  # a copy names where from, and then where to
        where = f" while writing {name}" if name else ""
        fail(StorageError(f"no space left{where} ({error.strerror}): free some and run it again"), arguments.debug)


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
