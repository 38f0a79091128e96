"""Let one process at a time do something in a repository."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import zc.lockfile

from onnx_release.core.errors import ReleaseError


@contextlib.contextmanager
def only_one(lock: Path, busy: ReleaseError) -> Iterator[None]:
    """Hold the lock for the length of the block. Raises `busy` if another process has it; a dead process loses it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The kernel releases a flock. What runs another program does not inherit it.
        held = zc.lockfile.SimpleLockFile(str(lock))
    except zc.lockfile.LockError as cause:
        raise busy from cause
    try:
        yield
    finally:
        held.close()
