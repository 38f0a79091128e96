"""The sha256 of files and folders, without reading again what has not changed."""

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

# Git ignores it, and whoever removes it loses time alone. Each entry is of one file, found by its place on the disk.
MEMORY = Path(".dvc/tmp/sha256.json")
# The clock of a file system may be as coarse: a file that changes again within it may show no change.
COARSE_NS = 2 * 10**9


def path_sha256(path: Path, digest: Digest = sha256) -> str:
    """The sha256 of a file, or that of a folder as `tree_sha256` has it."""
    return tree_sha256(path, digest) if path.is_dir() else digest(path)


def tree_sha256(folder: Path, digest: Digest = sha256) -> str:
    """The sha256 of a folder: of one line a file, its sha256, two spaces and its path, as `sha256sum` prints it.

    Paths are below the folder, with slashes, and in the order of `tree_files`.
    """
    total = hashlib.sha256()
    for path in tree_files(folder):
        line = f"{digest(path)}  {path.relative_to(folder).as_posix()}\n"
        total.update(line.encode(errors="surrogateescape"))
    return total.hexdigest()


def tree_files(folder: Path) -> list[Path]:
    """Every file below `folder`, sorted by its path there as text. What is hidden, by a leading dot, is left out.

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
                raise SourceError(f"{path} is neither a file nor a folder of its own: put there what it links to")
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


@contextmanager
def remembered() -> Iterator[Digest]:
    """Give a function like `sha256` that reads a file only if it may have changed since it was read last.

    It may have where its size, one of its times, or its place on the disk is another. The time of the last change of
    state is among them, which no program sets back but on Windows. Sums are kept in MEMORY, below DVC's folder;
    without that folder they are kept for the length of the block.
    """
    before = read_memory()
    sums = dict(before)

    def digest(path: Path) -> str:
        place, state = described(path)
        known = sums.get(place)
        if known is not None and known[:-1] == state:
            return str(known[-1])
        start = time.time_ns()
        found = sha256(path)
        sums.pop(place, None)
        if described(path) == (place, state) and start - max(state[1:]) > COARSE_NS:
            sums[place] = [*state, found]
        return found

    yield digest
    if sums != before and MEMORY.parent.parent.is_dir():
        with suppress(OSError):  # read-only, or full: the files are read again
            write_json(MEMORY, sums)


def read_memory() -> dict[str, list[Any]]:
    """What an earlier `remembered` has kept; nothing where that is missing or damaged."""
    try:
        content = json.loads(MEMORY.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def described(path: Path) -> tuple[str, list[int]]:
    """A file's place on the disk, and its size, the time of its content and that of its state, in nanoseconds."""
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}", [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
