"""An archive or a folder among a model's sources is a network without a network.py, if its trust allows."""

import zipfile

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from onnx_release.core.errors import CheckpointError, SpecError
from onnx_release.core.files import sha256
from onnx_release.core.params import Export
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.export.export import export_network
from onnx_release.network.checkpoint import load_checkpoint
from onnx_release.network.network import load_network, run_network
from onnx_release.runtime.session import open_session, run_session
from tests.imports import ROOT

INPUTS = [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}]
OUTPUTS = [{"name": "y", "dtype": "float32", "shape": ["batch", 2]}]
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)).eval()


@pytest.fixture
def declare(tmp_path, monkeypatch):
    """Write a spec whose sources are these files of data/raw/net, one input and one output; gives the spec."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/net").mkdir(parents=True)
    ModelFiles("net").raw.mkdir(parents=True)

    def write(*names, inputs=INPUTS, outputs=OUTPUTS, **more):
        content = YAML(typ="safe").load((ROOT / "models/digits_cnn/spec.yaml").read_text())
        sources = [
            {"name": name, "sha256": sha256(ModelFiles("net").raw / name), "from": {"path": name}, **more}
            for name in names
        ]
        changed = {
            "task": "tensor",
            "sources": sources,
            "variants": [],
            "inputs": inputs,
            "outputs": outputs,
            "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}},
        }
        for key in ("images", "labels", "budget", "derived"):
            content.pop(key, None)
        with (tmp_path / "models/net/spec.yaml").open("w") as file:
            YAML().dump({**content, **changed}, file)
        return load_spec("net")

    return write


def save_scripted(network, path):
    torch.jit.save(torch.jit.script(network), path)


def save_exported(network, path):
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(network, (torch.ones(2, 4),), dynamic_shapes=dynamic), path)


@pytest.mark.parametrize(
    ("save", "trust", "exporter"),
    [(save_scripted, {}, "torchscript"), (save_exported, {"trusted_pickle": True}, "dynamo")],
    ids=["TorchScript", "torch.export"],
)
def test_an_archive_is_the_network_and_is_exported(save, trust, exporter, network, declare, tmp_path):
    raw = ModelFiles("net").raw
    save(network, raw / "net.pt2")
    spec = declare("net.pt2", **trust)
    wanted = run_network(network, spec, {"x": X})["y"]
    found = load_network("net", raw)
    np.testing.assert_allclose(run_network(found, spec, {"x": X})["y"], wanted, rtol=1e-6)
    export_network(found, spec, Export(exporter=exporter, opset=18), tmp_path / "export")
    outputs = run_session(open_session(tmp_path / "export/model.onnx"), {"x": X})
    np.testing.assert_allclose(outputs["y"], wanted, atol=1e-6)


class Detector(nn.Module):
    """Its outputs have names, and a branch depends on the size of the batch."""

    def __init__(self):
        super().__init__()
        self.boxes, self.scores = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if x.shape[0] > 2:
            x = x * 2
        return {"boxes": self.boxes(x), "scores": self.scores(x)}


@pytest.mark.parametrize("rows", [2, 3])
def test_outputs_of_a_compiled_network_are_taken_by_name_and_its_branches_kept(rows, declare, tmp_path):
    network, raw = Detector().eval(), ModelFiles("net").raw
    save_scripted(network, raw / "net.pt")
    outputs = [
        {"name": name, "dtype": "float32", "shape": ["batch", size]} for name, size in [("scores", 2), ("boxes", 3)]
    ]
    spec = declare("net.pt", outputs=outputs)
    export_network(load_network("net", raw), spec, Export(exporter="torchscript", opset=18), tmp_path / "export")
    found = run_session(open_session(tmp_path / "export/model.onnx"), {"x": X[:rows]})
    wanted = network(torch.from_numpy(X[:rows]))
    assert list(found) == ["scores", "boxes"]
    for name, array in found.items():
        np.testing.assert_allclose(array, wanted[name].detach(), atol=1e-6)


class Stateful(nn.Module):
    """10 x + 1 state[0] + 2 state[1], and 3 times the weight of a batch, which is keyword-only in torch.export."""

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor], batch: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        return 10 * x + state[0] + 2 * state[1] + 3 * batch["weight"]


def save_with_keywords(network, path):
    x, weight, *state = (torch.ones(2, 4) for _ in range(4))
    axes = {0: torch.export.Dim.DYNAMIC}
    named = {"batch": {"weight": weight}, "state": tuple(state)}
    shapes = {"x": axes, "batch": {"weight": axes}, "state": (axes, axes)}
    torch.export.save(torch.export.export(network, (x,), named, dynamic_shapes=shapes), path)


@pytest.mark.parametrize(
    ("save", "exporter"), [(save_scripted, "torchscript"), (save_with_keywords, "dynamo")], ids=["scripted", "exported"]
)
def test_parts_of_an_archive_s_arguments_are_inputs_by_their_paths(save, exporter, declare, tmp_path):
    raw = ModelFiles("net").raw
    save(Stateful().eval(), raw / "net.pt2")
    names = ["state.1", "state.0", "batch.weight", "x"]
    inputs = [{"name": name, "dtype": "float32", "shape": ["batch", 4]} for name in names]
    outputs = [{"name": "y", "dtype": "float32", "shape": ["batch", 4]}]
    spec = declare("net.pt2", inputs=inputs, outputs=outputs, trusted_pickle=True)
    network = load_network("net", raw)
    arrays = {name: X + index for index, name in enumerate(names)}
    wanted = 10 * arrays["x"] + arrays["state.0"] + 2 * arrays["state.1"] + 3 * arrays["batch.weight"]
    np.testing.assert_allclose(run_network(network, spec, arrays)["y"], wanted, atol=1e-5)
    export_network(network, spec, Export(exporter=exporter, opset=18), tmp_path / "export")
    found = run_session(open_session(tmp_path / "export/model.onnx"), arrays)["y"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_an_archive_of_torch_export_needs_trust(network, declare):
    save_exported(network, ModelFiles("net").raw / "net.pt2")
    declare("net.pt2")
    with pytest.raises(CheckpointError, match=r"torch\.export, which may run any code.*write `trusted_pickle: true`"):
        load_network("net", ModelFiles("net").raw)


class Writing(nn.Module):
    def forward(self, x):
        torch.save(x, "written")
        return x


class Restoring(nn.Module):
    """Runs code while it is loaded."""

    @torch.jit.export
    def __getstate__(self):
        return (torch.ones(2), self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.training = state[1]

    def forward(self, x):
        return x


@pytest.mark.parametrize(("network", "name"), [(Writing(), "save"), (Restoring(), "__setstate__")])
def test_torchscript_that_reaches_files_or_runs_at_load_needs_trust(network, name, declare, tmp_path):
    path = ModelFiles("net").raw / "net.pt"
    save_scripted(network, path)
    declare("net.pt")
    with pytest.raises(CheckpointError, match=rf"TorchScript that calls {name}\(\).*write `trusted_pickle: true`"):
        load_network("net", ModelFiles("net").raw)
    assert not (tmp_path / "written").exists()
    declare("net.pt", trusted_pickle=True)
    load_network("net", ModelFiles("net").raw)


def test_the_weights_of_an_archive_load_into_a_network(network, tmp_path):
    save_scripted(network, tmp_path / "net.pt")
    other = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    load_checkpoint(other, tmp_path / "net.pt")
    assert torch.equal(other.state_dict()["3.weight"], network.state_dict()["3.weight"])


def test_a_damaged_archive_is_named(network, declare):
    path = ModelFiles("net").raw / "net.pt"
    save_scripted(network, path)
    with zipfile.ZipFile(path) as archive:
        code = [info for info in archive.infolist() if info.filename.endswith(".py")]
    place = max(code, key=lambda info: info.compress_size).header_offset
    content = bytearray(path.read_bytes())
    content[place + 120 : place + 140] = bytes(20)
    path.write_bytes(content)
    declare("net.pt")
    with pytest.raises(CheckpointError, match=r"net\.pt is truncated"):
        load_network("net", ModelFiles("net").raw)


def test_sources_that_are_no_network_are_described(network, declare):
    raw = ModelFiles("net").raw
    torch.save(network, raw / "whole.pth")
    torch.save(network.state_dict(), raw / "weights.pth")
    (raw / "net.onnx").write_bytes(b"\x08\x08")
    declare("whole.pth", "weights.pth", "net.onnx")
    with pytest.raises(SpecError) as caught:
        load_network("net", raw)
    first, *others = str(caught.value).splitlines()
    assert first.startswith("models/net/network.py is not there, and no source is a network of its own: write")
    assert [line.partition(",")[0] for line in others] == ["whole.pth is a whole network", "net.onnx is an ONNX file"]


def test_two_networks_are_one_too_many(network, declare):
    raw = ModelFiles("net").raw
    save_scripted(network, raw / "a.pt")
    save_scripted(network, raw / "b.pt")
    declare("a.pt", "b.pt")
    with pytest.raises(SpecError, match=r"2 sources are networks \(a\.pt, b\.pt\)"):
        load_network("net", raw)
