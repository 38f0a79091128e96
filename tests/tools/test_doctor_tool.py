"""The doctor as a person runs it, and in the stage that exports."""

import errno
import shutil
import sys
from pathlib import Path

import pytest

from onnx_release.core.errors import ExportError, SourceError, SpecError
from onnx_release.core.files import sha256, write_text
from onnx_release.core.params import merge_params, write_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.export.doctor import convert as doctor_convert
from stages import export as export_stage
from tests.clone import list_models
from tests.imports import ROOT
from tests.in_process import run_here
from tools import doctor

FILES = ModelFiles("sick_network")
MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(2, 2)

    def forward(self, x):
        return x + 1


def build(raw):
    return Net()
"""
SPEC = """
task: tensor
sources: []
dimensions:
  batch: {min: 1, max: 5, example: 2}
inputs:
  - {name: x, dtype: float32, shape: [batch, 4]}
outputs:
  - {name: y, dtype: float32, shape: [batch, 4]}
variants: []
"""
DATA = """
import numpy as np

from onnx_release.core.types import Sample


def samples(raw, split):
    yield Sample(preprocess(None))


def preprocess(item):
    return {"x": np.zeros(4)}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository of one model, in training mode and with an unused layer, in the current folder."""
    folder = tmp_path / FILES.folder
    for name, text in (("network.py", MODEL), ("spec.yaml", SPEC), ("data.py", DATA), ("params.yaml", "{}\n")):
        write_text(folder / name, text)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    list_models(tmp_path, FILES.model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # `models` is a namespace package, found anew from the path above.
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def test_the_tool_prints_every_finding_and_fails_for_an_error(project, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["doctor"])
    with pytest.raises(SystemExit) as caught:
        doctor.main(doctor.parser().parse_args())
    assert caught.value.code == 1
    printed = capsys.readouterr().out
    assert "error: models/sick_network/network.py:16: in training mode" in printed
    assert "error: models/sick_network/data.py:11: data.py makes the input x in float64" in printed
    assert "warning: models/sick_network/network.py:9: forward() never uses idle.weight, idle.bias" in printed
    assert printed.count("fix: ") == 3


def test_the_tool_finds_nothing_in_a_healthy_model(project, monkeypatch, capsys):
    (project / "network.py").write_text(
        MODEL.replace("self.idle = nn.Linear(2, 2)", "").replace("Net()\n", "Net().eval()\n")
    )
    (project / "data.py").write_text(DATA.replace("np.zeros(4)", "np.zeros(4, np.float32)"))
    monkeypatch.setattr(sys, "argv", ["doctor", "sick_network"])
    doctor.main(doctor.parser().parse_args())
    assert capsys.readouterr().out == "nothing found\n"


def declare(project, content):
    """weights.bin with this content, and the spec that declares it."""
    (project / "weights.bin").write_bytes(content)
    source = f"{{name: w.bin, sha256: {sha256(project / 'weights.bin')}, from: {{path: weights.bin}}}}"
    (project / "spec.yaml").write_text(SPEC.replace("sources: []", f"sources: [{source}]"))


def test_sources_are_fetched_where_they_are_not_there_as_declared(project):
    """No run of the pipeline has to come first; and what an earlier spec declared is not examined."""
    fetched = Path("data/raw/sick_network/w.bin")
    for content in (b"weights", b"new ones"):
        declare(project, content)
        doctor.diagnose(FILES)
        assert fetched.read_bytes() == content
    (project / "weights.bin").unlink()
    doctor.diagnose(FILES)  # what was fetched serves
    assert fetched.is_file()


def test_a_source_that_has_changed_is_refused(project):
    declare(project, b"weights")
    doctor.diagnose(FILES)
    (project / "weights.bin").write_bytes(b"retrained")
    with pytest.raises(SourceError, match=f"\n    sha256: {sha256(project / 'weights.bin')}$"):
        doctor.diagnose(FILES)
    assert Path("data/raw/sick_network/w.bin").read_bytes() == b"weights"


def test_a_full_disk_is_no_finding_about_the_network(project, monkeypatch):
    (project / "network.py").write_text(MODEL.replace("Net()\n", "Net().eval()\n"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(doctor_convert, "export_network", full)
    with pytest.raises(OSError, match="No space left"):
        doctor.diagnose(FILES)


def test_samples_that_fail_are_a_warning_beside_the_other_findings(project):
    (project / "data.py").write_text(DATA.replace("np.zeros(4)", "1 / 0"))
    findings = doctor.diagnose(FILES)
    assert [finding.level for finding in findings] == ["error", "warning", "warning"]
    assert "data.py could not be examined: ZeroDivisionError" in findings[2].what


def test_a_model_that_is_not_listed_is_examined_and_one_that_is_not_there_is_named(project, monkeypatch):
    list_models(Path.cwd(), "another")
    assert doctor.diagnose(FILES)
    with pytest.raises(SpecError, match="there is no model called sick: models/ has sick_network"):
        doctor.diagnose(ModelFiles("sick"))


def test_a_model_s_own_opset_is_examined(project):
    write_text(FILES.overrides, "export: {exporter: dynamo, opset: 17}\n")
    write_text(FILES.folder / "network.py", MODEL.replace("x + 1", "torch.nn.functional.mish(x)"))
    assert [finding.what for finding in doctor.diagnose(FILES) if "opset" in finding.what]
    write_text(FILES.overrides, "export: {exporter: dynamo, opset: 18}\n")
    assert not [finding.what for finding in doctor.diagnose(FILES) if "opset" in finding.what]


def test_the_export_stage_ends_with_the_errors_and_prints_warnings(project):
    write_params(FILES, merge_params(FILES), load_spec(FILES.model))
    with pytest.raises(ExportError, match=r"network\.py:16: in training mode"):
        export_stage.main(FILES.model)
    assert not FILES.variant("export").parent.exists()
    (project / "network.py").write_text(MODEL.replace("return Net()", "return Net().eval()"))
    write_text(FILES.folder / "data.py", DATA.replace("np.zeros(4)", "np.zeros(4, np.float32)"))
    for stage in ("prepare", "reference", "export"):
        result = run_here(Path.cwd(), f"stages.{stage}", FILES.model)
        assert result.returncode == 0, result.stderr
    assert "warning: models/sick_network/network.py:9: forward() never uses" in result.stderr
    assert FILES.variant("export").is_file()
