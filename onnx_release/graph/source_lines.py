"""Find the PyTorch module and the source line that a node of the exported graph comes from."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The repository that this library is in, which is the current folder unless a test works in another one.
REPOSITORY = Path(__file__).parents[2]
FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def source_line(stack_trace: str | None) -> tuple[str, int] | None:
    """Return the file and line of the innermost frame of `stack_trace` outside torch and this library, or None.

    The file is relative to the repository, or to site-packages, so that it is the same in every folder.
    """
    for match in reversed(list(FRAME.finditer(stack_trace or ""))):
        file = relative_file(match["file"])
        if not file.startswith(("torch/", "onnx_release/")):
            return file, int(match["line"])
    return None


def relative_file(file: str) -> str:
    """Return the path relative to the repository or to site-packages, else the name of the file."""
    path = Path(file)
    if "site-packages" in path.parts:
        return Path(*path.parts[path.parts.index("site-packages") + 1 :]).as_posix()
    for folder in (Path.cwd(), REPOSITORY):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


def describe_source(module: str, module_class: str, source: tuple[str, int] | None) -> str:
    """Describe the module, its class, and the line that used it, for messages."""
    where = f"{source[0]}:{source[1]}" if source else "an unknown line"
    return f"{module or 'the network itself'} ({module_class}), {where}"


def file_and_line(entry: Mapping[str, Any]) -> str:
    """Return FILE:LINE of an entry of sources.json; empty if the exporter knew none."""
    return f"{entry['file']}:{entry['line']}" if entry.get("file") else ""


def source_entry(module: str, module_class: str, operator: str, source: tuple[str, int] | None) -> dict[str, Any]:
    """Return an entry of sources.json."""
    file, line = source or (None, None)
    return {"module": module, "class": module_class, "operator": operator, "file": file, "line": line}
