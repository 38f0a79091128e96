"""A working copy of the repository in another folder, for tests that run the pipeline itself."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from onnx_release.core.command import path_with_python
from tools.clone import list_models, make_clone, only_model, run, set_param

__all__ = [
    "QUICK",
    "edited",
    "list_models",
    "make_clone",
    "only_model",
    "outputs",
    "path_with_python",
    "run",
    "set_param",
    "stages_run",
    "with_other_python_first",
]

# Enough to run the harness, and no more: no test reads a timing.
QUICK = {
    "benchmark.starts": "1",
    "benchmark.turn_seconds": "0.02",
    "profile.calls": "10",
}


def stages_run(output: str) -> list[str]:
    """The stages that a `dvc repro` ran, from what it printed."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def outputs(clone: Path) -> dict[str, str]:
    """The sha256 of every file that the pipeline has made."""
    files = [path for name in ("data", "artifacts", "metrics") for path in (clone / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(clone)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def with_other_python_first(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let PATH begin with a folder whose `python` fails, as one without the packages does."""
    python = folder / "other/python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nexit 9\n")
    python.chmod(0o755)
    patch.setenv("PATH", os.pathsep.join([str(python.parent), os.environ["PATH"]]))


@contextmanager
def edited(path: Path, content: bytes) -> Iterator[None]:
    """Give the file another content for the length of the block."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)
