"""Which of the repository's own modules a script imports, directly or not, read from the source without running it."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("onnx_release", "stages", "tools", "models")

# The library loads a model's files by the model's name: who imports the loader depends on what those files import.
LOADERS = {"onnx_release/model_data.py": "data.py", "onnx_release/network.py": "network.py"}


def imported_files(script: str) -> set[str]:
    """Paths of the modules that `script` imports, itself included; files in models/ count for what they import."""
    found: set[str] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += direct_imports(path)
            waiting += [p.relative_to(ROOT).as_posix() for p in ROOT.glob(f"models/*/{LOADERS.get(path, '-')}")]
    return {path for path in found if not path.startswith("models/")}


def direct_imports(path: str) -> list[str]:
    names = set()
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = [name.replace(".", "/") + ".py" for name in names if name.split(".")[0] in PACKAGES]
    return [file for file in files if (ROOT / file).is_file()]


@functools.cache
def import_statements(path: str) -> list[ast.Import | ast.ImportFrom]:
    """All of them, those inside functions too, but for what only a type checker reads."""
    found: list[ast.Import | ast.ImportFrom] = []
    waiting: list[ast.AST] = [ast.parse((ROOT / path).read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            waiting += ast.iter_child_nodes(node)
    return found


def third_party(files: set[str]) -> set[str]:
    """The top-level packages from elsewhere that any of `files` imports."""
    names = set()
    for path in files:
        for node in import_statements(path):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif node.module:
                names.add(node.module.split(".")[0])
    return names - set(PACKAGES)
