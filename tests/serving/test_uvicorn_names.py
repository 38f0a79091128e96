"""Another uvicorn than the tested one is one message at the start."""

import ast
from pathlib import Path

import pytest

from serving.uvicorn_names import CONNECTION, REQUEST, TESTED
from tests.imports import ROOT
from tests.served import PATIENCE, start

FILES = ("serving/connection.py", "serving/answering.py")
CODE = [node for file in FILES for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body]


def used(kind: ast.ClassDef, *of: str) -> set[str]:
    """The attributes of these objects that a class uses."""
    nodes = [node for node in ast.walk(kind) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if ast.unparse(node.value) in of}


def own(kind: ast.ClassDef) -> set[str]:
    """The methods of a class, and the attributes that its __init__ sets."""
    methods = [node for node in kind.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    stored = {
        node.attr
        for method in methods
        if method.name in ("__init__", "connection_made")
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    return {method.name for method in methods} | stored - CONNECTION | {"__init__"}


def test_every_inner_name_that_is_used_is_checked():
    classes = {node.name: node for node in CODE if isinstance(node, ast.ClassDef)}
    connection, cycle = classes["Connection"], classes["Cycle"]
    assert used(connection, "self") - own(connection) <= CONNECTION
    assert used(connection, "super()") - {"__init__"} <= CONNECTION
    assert used(connection, "self.cycle", "cycle") - {"__class__"} <= REQUEST
    assert used(cycle, "self") - own(cycle) - {"status", "counted"} <= REQUEST
    assert used(cycle, "super()") <= REQUEST


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("del impl.HttpToolsProtocol._start_asgi_task", r"HttpToolsProtocol._start_asgi_task"),
        ("del impl.RequestResponseCycle", "cannot import name 'RequestResponseCycle'"),
    ],
)
def test_a_name_that_uvicorn_no_longer_has_is_one_error(tmp_path, monkeypatch, change, problem):
    lines = ["import uvicorn.protocols.http.httptools_impl as impl", change]
    (tmp_path / "sitecustomize.py").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = start("serving", "--port", "0")
    assert process.wait(PATIENCE) == 1
    _, errors = process.communicate()
    assert errors.startswith(f"error: uvicorn {TESTED} lacks what this server needs (")
    assert problem in errors and errors.endswith(f"pip install uvicorn=={TESTED}\n")


def test_the_tested_version_is_the_pinned_one():
    assert f"uvicorn=={TESTED} " in Path(ROOT / "requirements-serving.txt").read_text(encoding="utf-8")
