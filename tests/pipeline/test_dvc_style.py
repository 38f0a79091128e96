"""`dvc exp run -S` changes one line for one value: the files are in the style in which DVC writes them."""

import difflib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import modify_yaml
from PIL import Image
from ruamel.yaml import YAML

from onnx_release.core.errors import SpecError
from onnx_release.core.spec import Spec
from onnx_release.core.yaml_files import read_yaml
from tests.clone import list_models
from tests.imports import ROOT
from tools.new_model import TASKS, texts, write_model

SPECS, OWN_PARAMS = (
    [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(f"models/*/{name}"))]
    for name in ("spec.yaml", "params.yaml")
)


def values(content: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted key and the value of everything that is neither a section nor a list."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from values(value, f"{above}{key}.")
        elif not isinstance(value, list):
            yield above + key, value


def another(value: Any) -> str:
    if isinstance(value, bool):
        return str(not value).lower()
    return "another" if isinstance(value, str) else str((value or 0) + 1)


def check_one_line(file: Path) -> None:
    """For each value of the file, set another with DVC's own function: one line differs."""
    before = file.read_text(encoding="utf-8")
    for key, value in values(YAML(typ="safe").load(before)):
        apply_overrides(str(file), [f"++{key}={another(value)}"])
        after = file.read_text(encoding="utf-8")
        lines = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]
        assert [line[0] for line in lines] == ["-", "+"], (key, lines)
        file.write_text(before, encoding="utf-8")


@pytest.mark.parametrize("name", ["params.yaml", *SPECS])
def test_a_value_of_params_yaml_and_of_a_spec_is_one_line(tmp_path, name):
    check_one_line(Path(shutil.copy(ROOT / name, tmp_path)))


@pytest.mark.parametrize("name", ["models.yaml", "stages/dvc.yaml", *OWN_PARAMS])
def test_dvc_writes_a_file_as_it_is_so_that_no_comment_is_lost(tmp_path, name):
    file = Path(shutil.copy(ROOT / name, tmp_path))
    with modify_yaml(file):
        pass
    assert file.read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8")


def test_a_value_of_one_model_s_own_is_one_line(tmp_path):
    """In models/NAME/params.yaml, which has none as it is written for a new model."""
    file = tmp_path / "params.yaml"
    file.write_text("{}\n")
    apply_overrides(str(file), ["++export.opset=20"])
    assert file.read_text() == "export:\n  opset: 20\n"
    apply_overrides(str(file), ["++slim.skip_fusion_patterns=[FusionGemm]"])
    assert file.read_text() == "export:\n  opset: 20\nslim:\n  skip_fusion_patterns:\n  - FusionGemm\n"
    check_one_line(file)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder in which `write_model` can write, with weights and photographs whose names YAML has to quote."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    list_models(tmp_path, "another")
    (tmp_path / 'it\'s "mine".pth').write_bytes(b"weights")
    for label in ("yes: #1", "null", f"long{' and longer' * 10}"):
        (tmp_path / "a: b #c" / label).mkdir(parents=True)
        for index in range(2):
            Image.new("L", (8, 8)).save(tmp_path / "a: b #c" / label / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("named", [False, True], ids=["as it is", "with weights and photographs"])
@pytest.mark.parametrize("task", TASKS)
def test_a_value_of_a_new_model_is_one_line(models, task, named):
    weights = models / 'it\'s "mine".pth' if named else None
    images = models / "a: b #c" if named and task == "classification" else None
    write_model("mine", task, weights, images)
    file = models / "models/mine/spec.yaml"
    sources = [source.name for source in read_yaml(file, Spec, SpecError).sources]
    assert sources[: named + bool(images)] == [path.name for path in (weights, images) if path]
    check_one_line(file)


@pytest.mark.parametrize("task", TASKS)
def test_the_template_itself_is_in_that_style_so_that_no_comment_is_lost(models, task):
    write_model("mine", task)
    values = {"name": "mine", "task": task, "sources": [], "classes": [], "checkpoint": "", "images": ""}
    written = {name: text for name, text in texts(values).items() if name.endswith(".yaml")}
    assert written.keys() == {"spec.yaml", "params.yaml"}
    for name, text in written.items():
        file = models / "models/mine" / name
        assert file.read_text(encoding="utf-8") == text
        apply_overrides(str(file), [])
        assert file.read_text(encoding="utf-8") == text
