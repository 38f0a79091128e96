"""Which parts of a model's spec and which parameters a stage reads, from the source of all that its main() may call.

A spec is recognised as `spec`, `SOMETHING.spec` or `load_spec(...)`, and parameters as a name that is annotated with
Params or is given `load_params(...)`, or as `SOMETHING.params`, in a template of Jinja, too. Which branches a run takes
does not matter, and neither does the process that something runs in. `note_reads` notes the same in a run, where it
takes what is read by any name.
"""

import ast
import functools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from onnx_release.core.imports import LOADERS, OWN_PACKAGES
from onnx_release.core.params import SPEC, SPEC_PARTS, Params
from onnx_release.core.spec import Spec
from onnx_release.core.yaml_files import Strict
from tests.imports import ROOT

# The keys of each section of the parameters.
SECTIONS: dict[str, set[str]] = {
    name.removesuffix("_"): set(section.model_fields)
    for name, section in get_type_hints(Params).items()
    if isinstance(section, type) and issubclass(section, Strict)
}
ALL_PARTS = {"network", *SPEC_PARTS}
# A spec checks itself as it is read, which is no use of it.
CHECKED = {("onnx_release/core/spec.py", "Spec")}
# These functions of LOADERS run what is in a model's folder.
RUN_FILES = {"load_data": "data.py", "network_source": "network.py"}


@dataclass
class Module:
    """The definitions of a module by name, and the file and the name there that each imported name stands for."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)


def declared_keys(stage: str, root: Path = ROOT) -> set[str]:
    """The keys of artifacts/NAME/params.json that a stage reads, as short as they are in dvc.yaml."""
    parts = spec_parts(stage, root)
    found = {SPEC} if parts == ALL_PARTS else {f"{SPEC}.{part}" for part in parts}
    for section, keys in parameters(stage, root).items():
        whole = "" in keys or keys == SECTIONS[section]
        found |= {section} if whole else {f"{section}.{key}" for key in keys}
    return found


def spec_parts(stage: str, root: Path) -> set[str]:
    names: set[str] = set()
    for path, body in reached(stage, root):
        named = spec_names(body)
        assert named <= {"spec"}, f"{path}: call a Spec `spec`, and not {named - {'spec'}}, so that its reads are found"
        names |= {item.attr for item in nodes(body) if isinstance(item, ast.Attribute) and is_spec(item.value)}
        for text in templates(path, body, root):
            names |= set(re.findall(r"\bspec\.(\w+)", text))
    if "model_dump" in names:
        return ALL_PARTS
    return {name if name in SPEC_PARTS else "network" for name in names & set(Spec.model_fields)}


def parameters(stage: str, root: Path) -> dict[str, set[str]]:
    """The keys that the stage reads by their section; "" is the section as a whole."""
    found: dict[str, set[str]] = {}
    for path, body in reached(stage, root):
        names = params_names(body)
        above = {item.value: item.attr for item in nodes(body) if isinstance(item, ast.Attribute)}
        reads = [
            (item.attr, above.get(item, ""))
            for item in nodes(body)
            if isinstance(item, ast.Attribute) and is_params(item.value, names)
        ]
        for text in templates(path, body, root):
            reads += re.findall(r"\bparams\.(\w+)(?:\.(\w+))?", text)
        for attribute, key in reads:
            section = attribute.removesuffix("_")  # validate_, since every pydantic model has a validate()
            if section in SECTIONS:
                found.setdefault(section, set()).add(key if key in SECTIONS[section] else "")
    return found


def is_spec(value: ast.expr) -> bool:
    return is_name(value, "spec") or is_attribute(value, "spec") or is_call(value, "load_spec")


def is_params(value: ast.expr, names: set[str]) -> bool:
    return is_name(value, *names) or is_attribute(value, "params") or is_call(value, "load_params")


def is_name(value: ast.AST, *names: str) -> bool:
    return isinstance(value, ast.Name) and value.id in names


def is_attribute(value: ast.AST, name: str) -> bool:
    return isinstance(value, ast.Attribute) and value.attr == name


def is_call(value: ast.AST, name: str) -> bool:
    return isinstance(value, ast.Call) and is_name(value.func, name)


def spec_names(body: ast.stmt) -> set[str]:
    """The names in a definition that stand for a spec."""
    return names_of(body, "Spec", "load_spec")


def params_names(body: ast.stmt) -> set[str]:
    """The names in a definition that stand for all of a model's parameters."""
    return names_of(body, "Params", "load_params")


def names_of(body: ast.stmt, kind: str, loader: str) -> set[str]:
    names = set()
    for item in nodes(body):
        if isinstance(item, ast.arg) and item.annotation is not None and is_name(item.annotation, kind):
            names.add(item.arg)
        elif isinstance(item, ast.Assign):
            pairs = zip(elements(item.targets[0]), elements(item.value), strict=False)
            names |= {left.id for left, right in pairs if isinstance(left, ast.Name) and is_call(right, loader)}
    return names


def elements(value: ast.expr) -> list[ast.expr]:
    return value.elts if isinstance(value, ast.Tuple) else [value]


@functools.cache
def reached(stage: str, root: Path) -> list[tuple[str, ast.stmt]]:
    """The definitions that main() of the stage names, directly or not, each with its file."""
    found: list[tuple[str, ast.stmt]] = []
    waiting, seen = [(f"stages/{stage}.py", "main")], set(CHECKED)
    while waiting:
        path, name = waiting.pop()
        if (path, name) in seen:
            continue
        seen.add((path, name))
        own = module(path, root)
        if name in own.imported:
            waiting.append(own.imported[name])
        for body in own.definitions.get(name, ()):
            found.append((path, body))
            waiting += [(path, item.id) for item in nodes(body) if isinstance(item, ast.Name)]
        if path in LOADERS and name in RUN_FILES:
            for file in root.glob(f"models/*/{RUN_FILES[name]}"):
                below = file.relative_to(root).as_posix()
                waiting += [(below, definition) for definition in module(below, root).definitions]
    return found


@functools.cache
def module(path: str, root: Path) -> Module:
    found, tree = Module(), ast.parse((root / path).read_text(encoding="utf-8"))
    for node in tree.body:
        for name in defined_by(node):
            found.definitions.setdefault(name, []).append(node)
    for item in ast.walk(tree):
        if isinstance(item, ast.ImportFrom) and (item.module or "").partition(".")[0] in ("", *OWN_PACKAGES):
            file = f"{(item.module or '').replace('.', '/')}.py"
            assert (root / file).is_file() and not item.level, (
                f"{path}: import names, from a module of an absolute path"
            )
            found.imported |= {alias.asname or alias.name: (file, alias.name) for alias in item.names}
    return found


def defined_by(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return [item.id for item in nodes(node) if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)]
    return []


@functools.cache
def nodes(body: ast.stmt) -> list[ast.AST]:
    return list(ast.walk(body))


def templates(path: str, body: ast.stmt, root: Path) -> Iterator[str]:
    """The text of every template of the room that the definition names."""
    files = {file.name: file for file in (root / path).parent.glob("templates/*")}
    for item in nodes(body):
        if isinstance(item, ast.Constant) and item.value in files:
            yield files[item.value].read_text(encoding="utf-8")


def note_reads(patch: pytest.MonkeyPatch, found: dict[str, set[str]]) -> None:
    """Note in `found` which parts of the spec and which sections of the parameters the stages read that run here."""
    watch(patch, Spec, lambda name: f"{SPEC}.{name if name in SPEC_PARTS else 'network'}", found)
    watch(patch, Params, lambda name: name.removesuffix("_"), found)


def watch(patch: pytest.MonkeyPatch, kind: type[Strict], key: Callable[[str], str], found: dict[str, set[str]]) -> None:
    fields, checking = set(kind.model_fields), []

    def model_validate(cls: type[Strict], content: Any) -> Strict:
        checking.append(content)
        try:
            return super(kind, cls).model_validate(content)
        finally:
            checking.pop()

    def read(self: Strict, name: str) -> Any:
        package, _, stage = sys.argv[0].partition(".")
        if name in fields and package == "stages" and not checking:  # it checks itself as it is read
            found.setdefault(stage, set()).add(key(name))
        return object.__getattribute__(self, name)

    patch.setattr(kind, "model_validate", classmethod(model_validate))
    patch.setattr(kind, "__getattribute__", read)
