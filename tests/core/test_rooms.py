"""The rooms of onnx_release/ stand in a row: a room imports those above it, so a change reaches only what is below."""

import pytest

from onnx_release.core.imports import direct_imports, reached_files
from onnx_release.packaging.package import CARRIED
from tests.imports import ROOT, room

ROOMS = (
    *("core", "data", "runtime", "network", "graph", "measure", "export", "reduce", "static_quantization", "validate"),
    *("timing", "choice", "performance", "report", "packaging", "review", "sweep"),
)
PATHS = [f"onnx_release/{name}" for name in ROOMS]
MODULES = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "onnx_release").rglob("*.py"))]


def test_every_module_stands_in_a_room_that_says_what_it_is_for():
    assert {room(path) for path in MODULES} == {*PATHS, "onnx_release/__init__.py"}
    for path in PATHS:
        assert (ROOT / path / "__init__.py").read_text().startswith('"""')


@pytest.mark.parametrize("path", PATHS)
def test_a_room_imports_only_rooms_above_it(path):
    above = PATHS[: PATHS.index(path) + 1]
    for module in MODULES:
        if room(module) == path:
            below = [name for name in direct_imports(module, ROOT) if room(name) not in above]
            assert not below, f"{module} imports {below}, which stands below it"


def test_what_a_release_carries_needs_no_other_room():
    carried = {path.as_posix() for path in CARRIED}
    reached = {room(path) for path in reached_files("serving/__main__.py", ROOT) if path.startswith("onnx_release/")}
    assert reached <= carried
    for module in MODULES:
        if room(module) in carried:
            assert {room(name) for name in direct_imports(module, ROOT)} <= carried
