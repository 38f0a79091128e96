"""Find the line of the user's source for a finding: in the running network, of a weight, in build() or spec.yaml."""

import ast
import functools
import inspect
import re
import sys
import sysconfig
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from types import CodeType

import torch

from onnx_release.graph.source_lines import relative_file

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))


@functools.cache
def user_file(file: str) -> str | None:
    """Return `file` as messages show it, or None if it belongs to Python, to torch or to this library."""
    shown = relative_file(file)
    library = Path(file).is_relative_to(STANDARD_LIBRARY) and "site-packages" not in Path(file).parts
    return None if library or shown.startswith(("torch/", "onnx_release/", "<")) else shown


def running_line(stop: Collection[CodeType]) -> str | None:
    """Return FILE:LINE of the user's innermost frame below the functions `stop`, which call the network, or None."""
    frame = sys._getframe(1)
    while frame.f_code not in stop:
        file = user_file(frame.f_code.co_filename)
        if file:
            return f"{file}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


def running_functions(stop: Collection[CodeType]) -> Iterator[str]:
    """Yield the names of the running functions, from the innermost to those of `stop`."""
    frame = sys._getframe(1)
    while frame.f_code not in stop:
        yield frame.f_code.co_name
        if frame.f_back is None:
            break
        frame = frame.f_back


def weight_line(network: torch.nn.Module, name: str, last: bool = False) -> str | None:
    """Return FILE:LINE that makes the parameter or buffer `name`, or None if all its modules are torch's.

    It is the line of `self.a.weight = ...` if there is one, else of the assignment of the innermost module with a class
    of the user's, else of that class. Of several assignments it is the first, or with `last` the last.
    """
    parts = name.split(".")
    owners = [(network.get_submodule(".".join(parts[:depth])), parts[depth:]) for depth in range(len(parts))]
    for owner, rest in owners:
        for length in range(len(rest), 1, -1):
            line = assignment_line(type(owner), rest[:length], last)
            if line:
                return line
    for owner, rest in reversed(owners):
        line = assignment_line(type(owner), rest[:1], last) or class_line(type(owner))
        if line:
            return line
    return None


def assignment_line(of: type, path: list[str], last: bool) -> str | None:
    """Return FILE:LINE of `self.PATH = ` (or register_buffer and the like) in a class or its bases."""
    for base in of.__mro__:
        lines = sorted(line for assigned, line in assignments(base) if assigned == path)
        if lines:
            found = class_source(base)
            return f"{found[0]}:{lines[-1 if last else 0]}" if found else None
    return None


@functools.cache
def assignments(of: type) -> list[tuple[list[str], int]]:
    """Return what a class of the user's assigns to `self`, with the line of its file."""
    found = class_source(of)
    if found is None:
        return []
    _, first, text = found
    result = []
    for node in ast.walk(ast.parse(text)):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        paths = [attribute_path(target) for target in targets]
        if isinstance(node, ast.Call):
            paths.append(registered(node))
        result += [(path, first + node.lineno - 1) for path in paths if path]  # type: ignore[attr-defined]
    return result


def registered(call: ast.Call) -> list[str]:
    """Return ["NAME"] for self.register_buffer("NAME", ...) and the like; empty for anything else."""
    name = call.args[0] if call.args else None
    if (
        isinstance(call.func, ast.Attribute)
        and call.func.attr in ("register_buffer", "register_parameter", "add_module", "register_module")
        and isinstance(name, ast.Constant)
        and isinstance(name.value, str)
    ):
        return [name.value]
    return []


def attribute_path(target: ast.expr) -> list[str]:
    """Return ["a", "weight"] for self.a.weight; empty for anything else."""
    path: list[str] = []
    while isinstance(target, ast.Attribute):
        path.insert(0, target.attr)
        target = target.value
    return path if isinstance(target, ast.Name) and target.id == "self" else []


def class_line(of: type) -> str | None:
    """Return FILE:LINE of a class of the user's, or None."""
    found = class_source(of)
    return f"{found[0]}:{found[1]}" if found else None


def class_source(of: type) -> tuple[str, int, str] | None:
    """Return the file, the first line and the text of a class of the user's; None for torch's, or without a source."""
    try:
        file = user_file(inspect.getsourcefile(of) or "<")
        lines, first = inspect.getsourcelines(of)
    except (OSError, TypeError):  # made at run time, or in C++
        return None
    return (file, first, textwrap.dedent("".join(lines))) if file else None


def build_line(folder: Path) -> str:
    """Return FILE:LINE of the last `return` of build() in the model's network.py, or of the class in its spec.yaml."""
    path = folder / "network.py"
    return function_line(path, "build", last=True) if path.is_file() else spec_line(folder, r"^transformers:")


def function_line(path: Path, name: str, last: bool = False) -> str:
    """Return FILE:LINE of a function in a file, or of its last `return`; line 1 if there is no such function."""
    line = 1
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            returns = [inner.lineno for inner in ast.walk(node) if isinstance(inner, ast.Return)]
            line = max([node.lineno, *returns]) if last else node.lineno
    return f"{path.as_posix()}:{line}"


def spec_line(folder: Path, pattern: str) -> str:
    """Return FILE:LINE of the first match of `pattern` in the model's spec.yaml, else of its first line."""
    path = folder / "spec.yaml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = (number for number, line in enumerate(lines, 1) if re.search(pattern, line))
    return f"{path.as_posix()}:{next(found, 1)}"
