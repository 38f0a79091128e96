"""Compute the sha256 of files and folders, without reading unchanged files again."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from onnx_release.core.errors import SourceError
from onnx_release.core.files import sha256, write_json

Digest = Callable[[Path], str]

# Git ignores it, and it may be removed at the cost of time. It has an entry for each file, by its place on the disk.
MEMORY = Path(".dvc/tmp/sha256.json")
# The clock of a file system may be this coarse, so a file that changes twice within it may look unchanged.
COARSE_NS = 2 * 10**9


def path_sha256(path: Path, digest: Digest = sha256) -> str:
    """Return the sha256 of a file, or of a folder as `tree_sha256` computes it."""
    return tree_sha256(path, digest) if path.is_dir() else digest(path)


def tree_sha256(folder: Path, digest: Digest = sha256) -> str:
    """Return the sha256 of a folder: that of a list with a line for each file, as `sha256sum` prints it.

    A line is the file's sha256, two spaces and its path below the folder with slashes, in the order of `tree_files`.
    """
    total = hashlib.sha256()
    for path in tree_files(folder):
        line = f"{digest(path)}  {path.relative_to(folder).as_posix()}\n"
        total.update(line.encode(errors="surrogateescape"))
    return total.hexdigest()


def tree_files(folder: Path) -> list[Path]:
    """Return every file below `folder` without hidden ones (leading dot), sorted by their paths as text.

    Raises SourceError for an empty folder, which a copy of the files would lose, and for a link to a folder, which may
    lead anywhere.
    """
    files, waiting = [], [folder]
    while waiting:
        current = waiting.pop()
        entries = [path for path in current.iterdir() if not path.name.startswith(".")]
        if not entries:
            raise SourceError(f"the folder {current} is empty: put files there, or remove it")
        for path in entries:
            if path.is_file():
                files.append(path)
            elif path.is_dir() and not path.is_symlink():
                waiting.append(path)
            else:
                raise SourceError(f"{path} is neither a file nor a real folder: replace the link with its content")
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


@contextmanager
def remembered() -> Iterator[Digest]:
    """Give a function like `sha256` that reads a file only if it may have changed since the last time.

    It may have changed if its size, one of its times, or its place on the disk differs. The times include that of the
    last change of state, which no program can set back, except on Windows. The sums are kept in MEMORY, below DVC's
    folder; without that folder they are kept until the end of the block.
    """
    before = read_memory()
    sums = dict(before)

    def digest(path: Path) -> str:
        place, state = file_state(path)
        known = sums.get(place)
        if known is not None and known[:-1] == state:
            return str(known[-1])
        start = time.time_ns()
        found = sha256(path)
        sums.pop(place, None)
        if file_state(path) == (place, state) and start - max(state[1:]) > COARSE_NS:
            sums[place] = [*state, found]
        return found

    yield digest
    if sums != before and MEMORY.parent.parent.is_dir():
        with suppress(OSError):  # read-only, or full: files will be read again
            write_json(MEMORY, sums)


def read_memory() -> dict[str, list[Any]]:
    """Return the sums that an earlier `remembered` has kept; none if the file is missing or damaged."""
    try:
        content = json.loads(MEMORY.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def file_state(path: Path) -> tuple[str, list[int]]:
    """Return a file's place on the disk, and its size, its mtime and its ctime in nanoseconds."""
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}", [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
