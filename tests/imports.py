"""Which modules a script of this repository imports, from wherever a test runs."""

from collections.abc import Collection
from pathlib import Path

from onnx_release.core.imports import OWN_PACKAGES, imported_names, reached_files

ROOT = Path(__file__).parents[1]


def imported_files(script: str, root: Path = ROOT, model: str = "*") -> set[str]:
    """The script and the modules that it imports, directly or not, without the files in models/."""
    return {path for path in reached_files(script, root, model) if not path.startswith("models/")}


def third_party(files: Collection[str], root: Path = ROOT) -> set[str]:
    """The top-level packages outside the repository that any of `files` imports, Python's own included."""
    return {name.split(".")[0] for path in files for name in imported_names(path, root)} - set(OWN_PACKAGES)


def room(path: str) -> str:
    """The folder of onnx_release/ that a module stands in, onnx_release/ROOM; the path itself elsewhere.

    The two modules beside the rooms only give names of one room a path that stays.
    """
    path = {"onnx_release/types.py": "onnx_release/core", "onnx_release/checkpoint.py": "onnx_release/network"}.get(
        path, path
    )
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "onnx_release" else path


def stage_files(stage: str) -> set[str]:
    """The modules that a stage runs and, for `package`, those that it copies; serving/ is a dependency as a whole."""
    served = imported_files("serving/__main__.py") if stage == "package" else set()
    return {path for path in imported_files(f"stages/{stage}.py") | served if not path.startswith("serving/")}
