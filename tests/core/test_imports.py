"""What a script imports is read from its source, without running it."""

import pytest

from onnx_release.core.imports import outside_names
from tests.imports import imported_files, third_party

FILES = {
    "stages/one.py": "import json\nimport numpy as np\nfrom onnx_release import a\nfrom onnx_release.b import thing\n",
    "onnx_release/a.py": "def late():\n    import onnx_release.c\n    raise SystemExit\n",
    "onnx_release/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch, onnx_release.d\n",
    "onnx_release/c.py": "from onnx_release import a\nfrom onnx_release.data import model_data\nimport ruamel.yaml\n",
    "onnx_release/d.py": "",
    "onnx_release/e.py": "",
    "onnx_release/f.py": "",
    "onnx_release/data/model_data.py": "",
    "models/first/data.py": "from onnx_release.e import thing\n",
    "models/second/data.py": "from onnx_release.f import thing\n",
}
IMPORTED = {"stages/one.py", *(f"onnx_release/{name}.py" for name in ("a", "b", "c", "data/model_data"))}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_modules_are_followed_into_functions_and_not_into_what_a_type_checker_reads(root):
    assert imported_files("stages/one.py", root) == IMPORTED | {"onnx_release/e.py", "onnx_release/f.py"}


def test_who_loads_a_model_s_data_depends_on_what_that_imports(root):
    assert imported_files("stages/one.py", root, model="first") == IMPORTED | {"onnx_release/e.py"}
    assert imported_files("stages/one.py", root, model="third") == IMPORTED


def test_what_comes_from_elsewhere_is_named(root):
    assert outside_names("stages/one.py", root) == {"numpy"}
    assert outside_names("onnx_release/b.py", root) == set()
    assert third_party(IMPORTED, root) == {"json", "numpy", "ruamel", "typing"}
