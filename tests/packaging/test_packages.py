"""What a release installs: all that it imports and what that needs, in the pinned versions, and nothing else."""

import importlib.metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from onnx_release.core.errors import SpecError
from onnx_release.packaging.packages import (
    CONSTRAINTS,
    REQUIREMENTS,
    SERVING,
    pinned_packages,
    read_pins,
    with_dependencies,
)
from tests.imports import ROOT, imported_files

LIBRARY = ["onnx_release/runtime/release.py", "onnx_release/runtime/onnx_model.py", "onnx_release/data/model_data.py"]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
HEAVY = {"torch", "pandas", "scipy", "dvc", "onnx", "onnxslim", "transformers", "matplotlib"}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def library():
    return sorted(set().union(*(imported_files(file) for file in LIBRARY)))


def test_a_release_needs_few_packages_and_none_that_made_it():
    found = pinned_packages(library(), CPU)
    assert {"numpy", "pillow", "onnxruntime", "pydantic", "pydantic-core", "fastapi", "uvicorn"} <= found.keys()
    assert found.keys() & (HEAVY | {"onnxruntime-gpu", "tokenizers"}) == set()
    assert list(found) == sorted(found)
    assert found["onnxruntime"] == read_pins(REQUIREMENTS).get("onnxruntime-gpu", found["onnxruntime"])


def test_a_gpu_gets_the_build_for_it_and_its_libraries():
    cpu, gpu = pinned_packages(library(), CPU), pinned_packages(library(), CUDA)
    assert gpu["onnxruntime-gpu[cuda,cudnn]"] == cpu["onnxruntime"]
    assert "onnxruntime" not in gpu and gpu.keys() - cpu.keys() == {"onnxruntime-gpu[cuda,cudnn]"}


def test_what_a_model_s_data_py_imports_is_there():
    found = pinned_packages([*library(), "models/minilm/data.py"], CPU)
    assert {"tokenizers", "huggingface-hub"} <= found.keys()
    assert found.keys() & HEAVY == set()


def test_all_that_a_locked_package_needs_is_locked_in_a_version_that_it_takes():
    """So that pip has nothing to choose. What the tests' environment has of a package, it says of itself."""
    found = pinned_packages([*library(), "models/minilm/data.py"], CPU)
    for name in found:
        installed = "onnxruntime-gpu" if name == "onnxruntime" else name
        for needed in map(Requirement, importlib.metadata.requires(installed) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert needed.specifier.contains(found[canonicalize_name(needed.name)]), (name, str(needed))


def test_the_server_s_list_is_whole_without_its_packages_installed():
    """The pipeline runs without them, so that nothing there can say what they need."""
    listed = read_pins(SERVING)
    pins = read_pins(REQUIREMENTS) | read_pins(CONSTRAINTS) | listed
    library_needs = with_dependencies({"pydantic", "numpy", "onnxruntime-gpu"} & pins.keys(), pins)
    assert with_dependencies(listed, pins) - listed.keys() - library_needs == set()
    assert importlib.metadata.version("fastapi") == listed["fastapi"]  # they are installed here, or this holds nothing


def test_no_package_is_pinned_in_two_versions():
    pins = [read_pins(path) for path in (REQUIREMENTS, CONSTRAINTS, SERVING)]
    for first in pins:
        for second in pins:
            assert {name: first[name] for name in first.keys() & second.keys()} == {
                name: second[name] for name in first.keys() & second.keys()
            }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("import librosa.core", "imports librosa, which the release would lack: pin its package in requirements.txt"),
        ("from torch import nn", "imports torch"),
    ],
)
def test_an_import_that_a_release_cannot_have_is_named(tmp_path, line, message):
    data = tmp_path / "data.py"
    data.write_text(f"{line}\nimport numpy\nimport json\n")
    with pytest.raises(SpecError, match=message):
        pinned_packages([str(data)], CPU)


def test_what_only_another_package_needs_must_be_pinned_too():
    with pytest.raises(SpecError, match=r"the release needs annotated-types, which is pinned nowhere: .*constraints"):
        with_dependencies(
            {"pydantic"},
            {name: pin for name, pin in read_pins(CONSTRAINTS).items() if name != "annotated-types"}
            | read_pins(REQUIREMENTS),
        )


def test_pins_are_read_with_extras_markers_and_comments(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("# head\n-c constraints.txt\na.b[x]==1.0  # why\nc==2; sys_platform == 'none'\nd>=3\n\nE_f==4\n")
    assert read_pins(path) == {"a-b": "1.0", "e-f": "4"}
