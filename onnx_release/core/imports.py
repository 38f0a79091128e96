"""Find the modules that a script imports, directly or not, from the source and without running it."""

import ast
import functools
import sys
from pathlib import Path

OWN_PACKAGES = ("models", "onnx_release", "serving", "stages", "tools")

# The library loads a model's files by the model's name: a script that imports the loader depends on their imports.
LOADERS = {"onnx_release/data/model_data.py": "data.py", "onnx_release/network/network.py": "network.py"}

MAY_HOLD_IMPORTS = (ast.stmt, ast.ExceptHandler, ast.match_case)  # an expression has no statement in it


def reached_files(script: str, root: Path = Path(), model: str = "*") -> set[str]:
    """Return the paths below `root` of `script` and of the modules that it imports, directly or not.

    If the loader of a model's files is among them, so are the imports of the files of `model`; by default of all.
    """
    found: set[str] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += direct_imports(path, root)
            waiting += [p.relative_to(root).as_posix() for p in root.glob(f"models/{model}/{LOADERS.get(path, '-')}")]
    return found


def direct_imports(path: str, root: Path) -> list[str]:
    """Return the repository's own modules that a file imports."""
    files = [
        name.replace(".", "/") + ".py" for name in imported_names(path, root) if name.split(".")[0] in OWN_PACKAGES
    ]
    return [file for file in files if (root / file).is_file()]


def outside_names(path: str, root: Path = Path()) -> set[str]:
    """Return the dotted names that a file imports from third-party packages."""
    own = {*OWN_PACKAGES, *sys.stdlib_module_names}
    return {name for name in imported_names(path, root) if name.split(".")[0] not in own}


def imported_names(path: str, root: Path) -> set[str]:
    """Return every dotted name that may be a module: both a and a.b for `from a import b`."""
    names: set[str] = set()
    for node in import_statements((root / path).read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            above = Path(path).parent.parts  # where a relative import starts
            start = above[: len(above) - node.level + 1] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


@functools.cache
def import_statements(source: str) -> list[ast.Import | ast.ImportFrom]:
    """Return all import statements, those inside functions too, except those that only a type checker reads."""
    found: list[ast.Import | ast.ImportFrom] = []
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            waiting += (child for child in ast.iter_child_nodes(node) if isinstance(child, MAY_HOLD_IMPORTS))
    return found
