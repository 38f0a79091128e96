"""Exports by both exporters: what is in the file, what is refused, and that the bytes depend on the network alone."""

import inspect
import json
import os
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from onnx_release.core.errors import ExportError, NetworkError
from onnx_release.core.params import Export
from onnx_release.core.spec import Spec, Tensor, example_sizes
from onnx_release.export.export import check_opset, export_network
from onnx_release.graph.graph import (
    EXTERNAL_DATA,
    check_model_file,
    describe_model,
    external_files,
    load_model,
    to_proto,
)
from onnx_release.network.example_inputs import example_inputs
from onnx_release.runtime.session import open_session, run_session
from tests.imports import ROOT

BOTH = pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
DYNAMO = Export(exporter="dynamo", opset=18)


class Tagger(nn.Module):
    """Tokens [batch, length] and a scale [batch] to scores [batch, length, 3] and sums [batch, 4]."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens, scale):
        hidden = self.embedding(tokens) * scale[:, None, None]
        return self.head(hidden), hidden.sum(1)


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class FixedReshape(nn.Module):
    def forward(self, x):
        return x.reshape(int(x.shape[0]), 8) * torch.ones(2, 8)


class Loop(nn.Module):
    def forward(self, x):
        total = x
        for _ in range(x.shape[0]):
            total = total + x
        return total


class FixedConstant(nn.Module):
    def forward(self, x):
        return x * torch.ones(2, 8)


class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class Clashing(nn.Module):
    """A submodule, its value and a parameter whose names outputs may have too."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.full((8,), 2.0))

    def forward(self, x):
        return torch.relu(self.linear(x)) * self.scale


class HalvedRecurrent(nn.Module):
    """A recurrent layer over a length that a convolution halves, whose decomposition in torch.onnx fails."""

    def __init__(self) -> None:
        super().__init__()
        self.halve = nn.Conv1d(8, 8, kernel_size=3, stride=2, padding=1)
        self.recurrent = nn.GRU(8, 4, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.recurrent(self.halve(x.transpose(1, 2)).permute(2, 0, 1))[0]


def line_of(text: str) -> int:
    """The number of the only line of this file, above this function, that holds `text`."""
    lines = Path(__file__).read_text().splitlines()[: inspect.getsourcelines(line_of)[1] - 1]
    (number,) = [number for number, line in enumerate(lines, 1) if text in line]
    return number


def tagger_spec() -> Spec:
    return Spec.model_validate(
        {
            "task": "tensor",
            "sources": [],
            "variants": [],
            "dimensions": {"batch": {"min": 1, "max": 6, "example": 2}, "length": {"min": 2, "max": 9, "example": 3}},
            "inputs": [
                {"name": "ids", "dtype": "int64", "shape": ["batch", "length"]},
                {"name": "factor", "dtype": "float32", "shape": ["batch"]},
            ],
            "outputs": [
                {"name": "scores", "dtype": "float32", "shape": ["batch", "length", 3]},
                {"name": "total", "dtype": "float32", "shape": ["batch", 4]},
            ],
        }
    )


@pytest.fixture
def rows_spec(make_spec):
    """One input and one output, both [batch, 8]; the output has the given name."""

    def make(output: str = "y", shape: list[int | str] | None = None) -> Spec:
        return make_spec({"input": ["batch", 8]}, {output: shape or ["batch", 8]}, batch=(1, 6, 2))

    return make


@BOTH
@pytest.mark.parametrize("opset", [18, 20])
def test_the_file_has_the_names_axes_and_opset_asked_for_and_torchs_answers(exporter, opset, tmp_path):
    torch.manual_seed(0)
    network, spec = Tagger().eval(), tagger_spec()
    params = Export(exporter=exporter, opset=opset)
    export_network(network, spec, params, tmp_path / "out")

    path = tmp_path / "out/model.onnx"
    found = describe_model(path)
    assert found["inputs"] == [
        {"name": "ids", "dtype": "int64", "shape": ["batch", "length"]},
        {"name": "factor", "dtype": "float32", "shape": ["batch"]},
    ]
    assert found["outputs"] == [
        {"name": "scores", "dtype": "float32", "shape": ["batch", "length", 3]},
        {"name": "total", "dtype": "float32", "shape": ["batch", 4]},
    ]
    assert found["opsets"]["ai.onnx"] == opset
    assert "+" not in found["producer"]

    session = open_session(path)
    for batch, length in ((1, 2), (2, 3), (6, 9), (5, 7)):
        ids = np.arange(batch * length).reshape(batch, length) % 5
        factor = np.linspace(-1, 2, batch, dtype=np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(ids), torch.from_numpy(factor))
        outputs = run_session(session, {"ids": ids, "factor": factor})
        for output, tensor in zip(outputs.values(), expected, strict=True):
            np.testing.assert_allclose(output, tensor.numpy(), rtol=1e-5, atol=1e-6)


@BOTH
def test_every_node_is_mapped_to_its_module(exporter, tmp_path):
    export_network(Tagger().eval(), tagger_spec(), Export(exporter=exporter, opset=18), tmp_path / "out")
    sources = json.loads((tmp_path / "out/sources.json").read_text())
    nodes = load_model(tmp_path / "out/model.onnx").graph.node
    assert sorted(sources) == sorted(node.name for node in nodes)
    modules = {node.op_type: sources[node.name]["module"] for node in nodes}
    assert (modules["Gather"], modules["MatMul"], modules["Mul"]) == ("embedding", "head", "")


def test_dynamo_maps_every_node_to_its_source_line(tmp_path):
    export_network(Tagger().eval(), tagger_spec(), DYNAMO, tmp_path / "out")
    sources = json.loads((tmp_path / "out/sources.json").read_text())
    nodes = {node.op_type: sources[node.name] for node in load_model(tmp_path / "out/model.onnx").graph.node}
    file = "tests/export/test_export.py"
    assert nodes["Mul"] == {
        "module": "",
        "class": f"{Tagger.__module__}.Tagger",
        "operator": "aten.mul.Tensor",
        "file": file,
        "line": line_of("self.embedding(tokens) * scale"),
    }
    # Where the network calls the layer, not where torch implements it.
    assert (nodes["MatMul"]["class"], nodes["MatMul"]["operator"]) == (
        "torch.nn.modules.linear.Linear",
        "aten.linear.default",
    )
    assert (nodes["MatMul"]["file"], nodes["MatMul"]["line"]) == (file, line_of("return self.head(hidden)"))


@BOTH
def test_a_network_in_training_mode_is_refused(exporter, tmp_path, rows_spec):
    network = nn.Sequential(nn.Dropout())
    with pytest.raises(NetworkError, match="in training mode"):
        export_network(network, rows_spec(), Export(exporter=exporter, opset=18), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@BOTH
def test_an_unsupported_operator_is_named_with_module_line_and_what_to_try(exporter, tmp_path, rows_spec):
    network = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.ReLU(), Bessel())).eval()
    with pytest.raises(ExportError) as caught:
        export_network(network, rows_spec(), Export(exporter=exporter, opset=18), tmp_path / "out")
    message = str(caught.value)
    assert "bessel_j0" in message.partition("does not convert to ONNX")[0]
    assert "Used by 1.1 (" in message and "Bessel)" in message
    assert f"tests/export/test_export.py:{line_of('torch.special.bessel_j0(x)')}." in message
    other = "torchscript" if exporter == "dynamo" else "dynamo"
    assert "simpler operators" in message and f"export.exporter={other}" in message


def test_an_operator_that_fails_in_its_decomposition_is_named_and_not_the_outputs(tmp_path, make_spec):
    sizes = {"batch": (1, 4, 2), "length": (4, 32, 16), "half": (2, 16, 8)}
    spec = make_spec({"x": ["batch", "length", 8]}, {"y": ["half", "batch", 8]}, **sizes)
    with pytest.raises(ExportError) as caught:
        export_network(HalvedRecurrent().eval(), spec, DYNAMO, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith("the operator aten.gru.input does not convert to ONNX. Used by recurrent (")
    assert f"tests/export/test_export.py:{line_of('self.recurrent(self.halve(')}." in message


def test_no_exporter_is_advised_that_was_tried(tmp_path, rows_spec):
    with pytest.raises(ExportError) as caught:
        export_network(Bessel().eval(), rows_spec(), Export(exporter="auto", opset=18), tmp_path / "out")
    assert "simpler operators" in str(caught.value) and "export.exporter" not in str(caught.value)


class Projected(nn.Module):
    """A recurrent layer that the older exporter refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(8, 8, proj_size=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(self.layer(x)[0].split(2, -1), -1).repeat(1, 2)


def test_torchscript_says_in_a_line_why_it_fails_and_prints_no_graph(tmp_path, rows_spec, capfd):
    with pytest.raises(ExportError, match=r"TorchScript exporter fails: .*LSTMs with projections") as caught:
        export_network(Projected().eval(), rows_spec(), Export(exporter="torchscript", opset=18), tmp_path / "out")
    reason, advice = str(caught.value).splitlines()
    assert len(reason) < 300 and advice.endswith("or try export.exporter=dynamo")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("network", [Loop(), FixedConstant()], ids=["a loop", "a constant"])
def test_dynamo_names_the_dimension_that_the_network_fixes(network, tmp_path, rows_spec):
    with pytest.raises(ExportError, match=r"fixes the size of batch, declared as symbolic in spec\.yaml"):
        export_network(network.eval(), rows_spec(), DYNAMO, tmp_path / "out")


def test_dynamo_names_only_the_dimension_that_is_fixed(tmp_path):
    class Halves(Tagger):
        def forward(self, tokens, scale):
            return super().forward(tokens * torch.ones(3, dtype=torch.int64), scale)

    with pytest.raises(ExportError, match="fixes the size of length, declared"):
        export_network(Halves().eval(), tagger_spec(), DYNAMO, tmp_path / "out")


@pytest.mark.parametrize("network", [FixedReshape(), FixedConstant()], ids=["a reshape", "a constant"])
def test_torchscript_names_the_dimension_that_is_symbolic_only_in_name(network, tmp_path, rows_spec):
    with pytest.raises(ExportError, match=r"dimension batch is symbolic only in name: .*fails on input \[3, 8\]"):
        export_network(network.eval(), rows_spec(), Export(exporter="torchscript", opset=18), tmp_path / "out")


def test_dynamo_names_the_line_of_a_branch_on_a_value(tmp_path, rows_spec):
    with pytest.raises(ExportError, match="cannot capture the network") as caught:
        export_network(Branch().eval(), rows_spec(), DYNAMO, tmp_path / "out")
    assert f" at tests/export/test_export.py:{line_of('if x.sum() > 0')}: " in str(caught.value)
    assert "torch.where" in str(caught.value)


@pytest.mark.parametrize("output", ["linear", "relu", "scale"])
def test_an_output_may_have_the_name_of_something_inside(output, tmp_path, rows_spec):
    torch.manual_seed(0)
    network = Clashing().eval()
    export_network(network, rows_spec(output), DYNAMO, tmp_path / "out")
    path = tmp_path / "out/model.onnx"
    check_model_file(path)
    inputs = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(run_session(open_session(path), {"input": inputs})[output], expected, atol=1e-6)


@BOTH
@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (["batch", 7], r"axis 1 of y is 8 in the file, spec\.yaml declares 7"),
        (["batch", 8, 1], r"y has 2 axes in the file, spec\.yaml declares \['batch', 8, 1\]"),
    ],
    ids=["a size", "the axes"],
)
def test_a_shape_that_contradicts_the_spec_is_named(exporter, shape, says, tmp_path, rows_spec):
    with pytest.raises(ExportError, match=says):
        export_network(nn.ReLU().eval(), rows_spec("y", shape), Export(exporter=exporter, opset=18), tmp_path / "out")


def test_another_opset_than_asked_for_is_an_error_that_says_what_to_set():
    model = helper.make_model(helper.make_graph([], "graph", [], []), opset_imports=[helper.make_opsetid("", 18)])
    check_opset(model, "dynamo", 18, {})
    with pytest.raises(ExportError, match=r"asked for opset 15, .*returned 18.*export\.opset to 18.*=torchscript"):
        check_opset(model, "dynamo", 15, {})


def test_example_inputs_are_the_same_each_time_and_of_the_declared_dtypes():
    spec = tagger_spec()
    first, second = (example_inputs(spec, example_sizes(spec)) for _ in range(2))
    assert [(tuple(tensor.shape), tensor.dtype) for tensor in first] == [((2, 3), torch.int64), ((2,), torch.float32)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@BOTH
def test_a_failed_export_leaves_the_earlier_one(exporter, tmp_path, rows_spec):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model.onnx").write_text("the earlier one")
    params = Export(exporter=exporter, opset=18)
    for network, spec in ((Bessel(), rows_spec()), (nn.ReLU(), rows_spec("y", ["batch", 7]))):
        with pytest.raises(ExportError):
            export_network(network.eval(), spec, params, folder)
    if exporter == "torchscript":  # found only once the new file is written
        with pytest.raises(ExportError, match="only in name"):
            export_network(FixedReshape().eval(), rows_spec(), params, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (folder / "model.onnx").read_text() == "the earlier one"


EXPORT_HERE = """
import sys
from pathlib import Path

import torch

import network
from onnx_release.export.export import export_network
from onnx_release.core.params import Export
from onnx_release.core.spec import Spec

spec = Spec.model_validate({
    "task": "tensor",
    "sources": [],
    "variants": [],
    "dimensions": {"batch": {"min": 1, "max": 6, "example": 2}},
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 8]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 4]}],
})
torch.manual_seed(0)
for exporter in ("dynamo", "torchscript"):
    export_network(network.Small().eval(), spec, Export(exporter=exporter, opset=18), Path(exporter))
"""
NETWORK = """
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x))
"""


def test_the_bytes_depend_neither_on_the_folder_nor_on_the_process(tmp_path, monkeypatch):
    folders = [tmp_path / "first", tmp_path / "second with another name"]
    for folder in folders:
        folder.mkdir()
        (folder / "network.py").write_text(NETWORK)
        (folder / "make.py").write_text(EXPORT_HERE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "make.py"], cwd=folders[0], env=environment, check=True)
    monkeypatch.chdir(folders[1])
    monkeypatch.syspath_prepend(folders[1])
    runpy.run_path("make.py")
    names = [(exporter, file) for exporter in ("dynamo", "torchscript") for file in ("model.onnx", "sources.json")]
    contents = [[(folder / exporter / file).read_bytes() for exporter, file in names] for folder in folders]
    assert contents[0] == contents[1]
    for content in contents[0]:
        for absolute in (tmp_path, ROOT, Path(sys.prefix), Path(torch.__file__).parent):
            assert str(absolute).encode() not in content
    assert json.loads(contents[0][1])["node_linear_1"]["file"] == "network.py"


@BOTH
def test_weights_over_2_gb_go_to_one_file_beside_the_model(exporter, tmp_path, make_spec, monkeypatch):
    """As if 2 GB were nothing: torch's older exporter then writes a file for each weight."""
    real = torch.onnx.export

    def export(*arguments, dynamo, **options):
        program = real(*arguments, dynamo=dynamo, **options)
        if not dynamo:
            path = arguments[2]
            onnx.save_model(onnx.load(path), path, save_as_external_data=True, all_tensors_to_one_file=False)
        return program

    monkeypatch.setattr("torch.onnx.export", export)
    monkeypatch.setattr("onnx_release.export.dynamo.to_proto", partial(to_proto, threshold=0))
    spec = make_spec({"input": ["batch", 32]}, {"y": ["batch", 32]}, batch=(1, 6, 2))
    network = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)).eval()
    export_network(network, spec, Export(exporter=exporter, opset=18), tmp_path / "out")
    path = tmp_path / "out/model.onnx"
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx", EXTERNAL_DATA, "sources.json"]
    assert external_files(path) == {EXTERNAL_DATA}
    assert path.with_name(EXTERNAL_DATA).stat().st_size == 2 * 32 * 32 * 4
    inputs = np.linspace(-1, 1, 96, dtype=np.float32).reshape(3, 32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(run_session(open_session(path), {"input": inputs})["y"], expected, atol=1e-5)


class Guarded(nn.Module):
    """A division and a logarithm that a small constant guards, and no-ops that may go."""

    def forward(self, x):
        return x / (x.norm(dim=-1, keepdim=True) + 1e-8) + torch.log(x.abs() + 1e-8) * 1 + 0


@BOTH
def test_a_small_constant_that_guards_a_division_stays(exporter, tmp_path, rows_spec):
    """onnxscript's rules take 1e-8 for zero; a row of zeros then divides zero by zero."""
    network = Guarded().eval()
    export_network(network, rows_spec(), Export(exporter=exporter, opset=18), tmp_path / "out")
    inputs = np.zeros((3, 8), np.float32)
    inputs[1] = np.linspace(-1, 1, 8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(inputs)).numpy()
    found = run_session(open_session(tmp_path / "out/model.onnx"), {"input": inputs})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


class Attention(nn.Module):
    """Adds a learned bias to its products, as T5 and Swin do, and puts its heads side by side again."""

    def __init__(self):
        super().__init__()
        self.heads, self.bias = nn.Linear(8, 8), nn.Embedding(32, 2)

    def forward(self, x):
        heads = self.heads(x).view(*x.shape[:2], 2, 4).transpose(1, 2)
        places = torch.arange(x.shape[1])
        bias = self.bias((places[:, None] - places[None, :]).abs()).permute(2, 0, 1).unsqueeze(0)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, bias)
        return mixed.transpose(1, 2).reshape(*x.shape[:2], -1)


class Cached(nn.Module):
    """Values over a cache and what is new, weighted by a mask over both."""

    def forward(self, mask: torch.Tensor, new: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        return torch.cat([past, new], 1) * mask


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_an_axis_that_follows_two_sizes_stays_symbolic(exporter, tmp_path, make_spec):
    spec = make_spec(
        {"mask": ["batch", "past + sequence"], "new": ["batch", "sequence"], "past": ["batch", "past"]},
        {"y": ["batch", "past + sequence"]},
        batch=(1, 4, 2), sequence=(1, 6, 3), past=(0, 8, 4),
    )  # fmt: skip
    export_network(Cached().eval(), spec, Export(exporter=exporter, opset=18), tmp_path / "out")
    session = open_session(tmp_path / "out/model.onnx")
    assert session.get_inputs()[0].shape == ["batch", "past + sequence"]
    random = np.random.default_rng(0)
    for batch, sequence, past in ((1, 1, 0), (3, 6, 8)):
        new, cache, mask = (random.random((batch, n), np.float32) for n in (sequence, past, past + sequence))
        found = run_session(session, {"mask": mask, "new": new, "past": cache})["y"]
        np.testing.assert_allclose(found, np.concatenate([cache, new], 1) * mask, rtol=1e-6)


@pytest.mark.parametrize(
    ("exporter", "layer"), [("dynamo", Recurrent), ("torchscript", Recurrent), ("dynamo", Attention)]
)
def test_a_layer_over_a_dynamic_sequence_gives_torchs_answers(exporter, layer, tmp_path):
    torch.manual_seed(0)
    network = layer().eval()
    spec = tagger_spec().model_copy(
        update={
            "inputs": [Tensor(name="x", dtype="float32", shape=["batch", "length", 8])],
            "outputs": [Tensor(name="y", dtype="float32", shape=["batch", "length", 8])],
        }
    )
    export_network(network, spec, Export(exporter=exporter, opset=18), tmp_path / "out")
    session = open_session(tmp_path / "out/model.onnx")
    for batch, length in ((1, 2), (6, 9), (3, 5)):
        inputs = np.linspace(-1, 1, batch * length * 8, dtype=np.float32).reshape(batch, length, 8)
        with torch.inference_mode():
            expected = network(torch.from_numpy(inputs)).numpy()
        np.testing.assert_allclose(run_session(session, {"x": inputs})["y"], expected, atol=1e-6)
