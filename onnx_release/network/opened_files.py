"""See which files a function reads, such as the weights that it loads."""

import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CODE = {".py", ".pyc", ".so", ".pyd", ".dll"}
# Folders of packages, those of another environment that this one looks into among them.
PACKAGES = {"site-packages", "dist-packages"}
# An audit hook cannot be removed, so there is one, which writes to the lists of the blocks that are open.
recording: list[list[str]] = []
installed: list[bool] = []


@contextmanager
def opened_files() -> Iterator[list[Path]]:
    """Give a list that, after the block, has the files that Python code opened in it, without code and packages."""
    if not installed:
        sys.addaudithook(record)
        installed.append(True)
    names: list[str] = []
    found: list[Path] = []
    recording.append(names)
    try:
        yield found
    finally:
        recording.remove(names)
        found += [path for path in map(Path, dict.fromkeys(names)) if is_data(path)]


def record(event: str, arguments: tuple[Any, ...]) -> None:
    """Note the name of a file that is opened for reading."""
    if event == "open" and recording and isinstance(arguments[0], str | bytes) and "r" in str(arguments[1] or "r"):
        name = arguments[0]
        recording[-1].append(name if isinstance(name, str) else name.decode(errors="surrogateescape"))


def is_data(path: Path) -> bool:
    """Return whether a path is a file that is neither code nor part of Python, a package or the system."""
    above = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    system = ("/proc", "/sys", "/dev", "/etc")
    resolved = path.resolve()
    return (
        path.suffix not in CODE
        and resolved.is_file()
        and PACKAGES.isdisjoint(resolved.parts)
        and not any(resolved.is_relative_to(folder) for folder in (*above, *system))
    )
