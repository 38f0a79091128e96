"""Which modules a script of this repository imports: onnx_release/core/imports.py, from wherever a test runs."""

from pathlib import Path

from onnx_release.core import imports

ROOT = Path(__file__).parents[1]
PACKAGES = imports.OWN_PACKAGES


def imported_files(script: str) -> set[str]:
    return imports.imported_files(script, ROOT)


def third_party(files: set[str]) -> set[str]:
    return imports.third_party(files, ROOT)


def room(path: str) -> str:
    """The folder of onnx_release/ that a module stands in, onnx_release/ROOM; the path itself elsewhere."""
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "onnx_release" else path


def stage_files(stage: str) -> set[str]:
    """The modules that a stage runs and, for `package`, those that it copies; serving/ is a dependency as a whole."""
    served = imported_files("serving/__main__.py") if stage == "package" else set()
    return {path for path in imported_files(f"stages/{stage}.py") | served if not path.startswith("serving/")}
