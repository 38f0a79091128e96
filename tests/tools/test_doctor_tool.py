"""The doctor as a person runs it, and in the stage that exports."""

import errno
import sys
from pathlib import Path

import pytest

from onnx_release.core.errors import ExportError, SourceError
from onnx_release.core.files import sha256
from onnx_release.core.params import load_params
from onnx_release.export.doctor import convert as doctor_convert
from stages import export as export_stage
from tests.imports import ROOT
from tools import doctor

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
    folder = tmp_path / "models/sick_network"
    folder.mkdir(parents=True)
    for name, text in (("network.py", MODEL), ("spec.yaml", SPEC), ("data.py", DATA)):
        (folder / name).write_text(text)
    (tmp_path / "params.yaml").write_text(
        (ROOT / "params.yaml").read_text().replace("model: mobilenet_v2", "model: sick_network")
    )
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
        doctor.diagnose("sick_network", load_params())
        assert fetched.read_bytes() == content
    (project / "weights.bin").unlink()
    doctor.diagnose("sick_network", load_params())  # what was fetched serves
    assert fetched.is_file()


def test_a_source_that_has_changed_is_refused(project):
    declare(project, b"weights")
    doctor.diagnose("sick_network", load_params())
    (project / "weights.bin").write_bytes(b"retrained")
    with pytest.raises(SourceError, match=f"\n    sha256: {sha256(project / 'weights.bin')}$"):
        doctor.diagnose("sick_network", load_params())
    assert Path("data/raw/sick_network/w.bin").read_bytes() == b"weights"


def test_a_full_disk_is_no_finding_about_the_network(project, monkeypatch):
    (project / "network.py").write_text(MODEL.replace("Net()\n", "Net().eval()\n"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(doctor_convert, "export_network", full)
    with pytest.raises(OSError, match="No space left"):
        doctor.diagnose("sick_network", load_params())


def test_samples_that_fail_are_a_warning_beside_the_other_findings(project):
    (project / "data.py").write_text(DATA.replace("np.zeros(4)", "1 / 0"))
    findings = doctor.diagnose("sick_network", load_params())
    assert [finding.level for finding in findings] == ["error", "warning", "warning"]
    assert "data.py could not be examined: ZeroDivisionError" in findings[2].what


def test_the_export_stage_ends_with_the_errors_and_prints_warnings(project, capsys):
    with pytest.raises(ExportError, match=r"network\.py:16: in training mode"):
        export_stage.main()
    assert not Path("artifacts").exists()
    (project / "network.py").write_text(MODEL.replace("return Net()", "return Net().eval()"))
    del sys.modules["models.sick_network.network"]
    export_stage.main()
    assert "warning: models/sick_network/network.py:9: forward() never uses" in capsys.readouterr().err
    assert Path("artifacts/export/model.onnx").is_file()
