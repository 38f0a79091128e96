"""The first module that an export gets wrong is found, with the line that made its node."""

import json
import re
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from onnx_release.core.files import write_text
from onnx_release.core.params import Export, Runtime, Validate
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec
from onnx_release.core.types import Sample
from onnx_release.data.samples import write_samples
from onnx_release.export.export import export_network
from onnx_release.export.first_difference import Difference, first_difference
from onnx_release.network.reference import write_reference
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.validate.validate import validate
from tests.clone import list_models
from tests.in_process import run_here

SPEC = Spec.model_validate(
    {
        "task": "tensor",
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}},
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 3]}],
    }
)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return torch.tanh(self.layer(2 * x))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = Block(), Block(), nn.Linear(3, 3)

    def forward(self, x):
        return self.last(self.second(self.first(x)))


@pytest.fixture
def with_changed_bias(tmp_path):
    """Export a network, which is right, and give what is found once a bias of the file is 0.5 larger, and the file."""

    def change(
        network: nn.Module, exporter: Literal["dynamo", "torchscript"], array: np.ndarray, name: str
    ) -> tuple[Difference, onnx.ModelProto]:
        export_network(network, SPEC, Export(exporter=exporter, opset=18), tmp_path / "export")
        model = onnx.load(tmp_path / "export/model.onnx")
        sources = json.loads((tmp_path / "export/sources.json").read_text())
        assert first_difference(network, model, sources, {"x": array}) is None
        (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
        found = first_difference(network, model, sources, {"x": array})
        assert found is not None
        return found, model

    torch.manual_seed(0)
    return change


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_the_module_whose_weights_are_changed_in_the_file_is_named(with_changed_bias, exporter):
    array = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    found, _ = with_changed_bias(Network().eval(), exporter, array, "second.layer.bias")
    assert (found.module, found.kind, found.operator) == ("second.layer", "Linear", "Gemm")
    assert found.error == pytest.approx(0.5, abs=1e-6)
    if exporter == "dynamo":  # the other one knows no lines
        assert found.line.startswith("tests/export/test_first_difference.py:")
    assert "the first module that differs is second.layer (Linear)" in str(found)


NETWORK = """
import torch
from torch import nn


class Turned(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] < 3 else -x


def build(raw):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), Turned()).eval()
"""


def test_a_wrong_export_fails_with_the_command_that_names_the_module_to_blame(tmp_path, monkeypatch):
    """A trace fixes the branch on the size; the mistake is shown by the command that the validation names."""
    files = ModelFiles("turned")
    write_text(tmp_path / files.folder / "network.py", NETWORK)
    write_text(tmp_path / files.spec, json.dumps(SPEC.model_dump(mode="json", exclude_defaults=True)))
    write_text(tmp_path / files.overrides, "{}\n")
    list_models(tmp_path, files.model)
    monkeypatch.chdir(tmp_path)
    code: dict[str, Any] = {}
    exec(NETWORK, code)
    network = code["build"](files.raw)
    write_samples(files.evaluation_samples, [Sample({"x": np.ones(3, np.float32)})], 1, SPEC)
    write_reference(network, SPEC, files, seed=0)
    params = Export(exporter="torchscript", opset=18)
    export_network(network, SPEC, params, files.variant("export").parent)
    opened = OnnxModel(files.variant("export"), SPEC, Runtime(provider="cpu", intra_threads=1))
    metrics, _ = validate(opened, None, files, Validate(resamples=200, confidence=0.95, seed=0))  # type: ignore[arg-type]
    (command,) = re.findall(r"`python -m (tools\.explain export .*?)`", metrics.failure)
    result = run_here(tmp_path, *command.split())
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("y is off by ")
    assert "the first module that differs is 1 (Turned)" in result.stdout
    network[1].forward = lambda x: 2 * x
    write_reference(network, SPEC, files, seed=0)
    assert run_here(tmp_path, *command.split()).stdout == "the answers of the export are PyTorch's, up to rounding\n"


class FoldedNetwork(nn.Module):
    """An export computes the batch norm within the convolution before it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2), nn.Conv1d(2, 1, 1)
        self.norm.running_mean.fill_(3)  # type: ignore[union-attr]

    def forward(self, x):
        return self.last(self.norm(self.conv(x[:, None])).relu())[:, 0]


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_module_is_not_to_blame_for_another_that_was_folded_into_it(with_changed_bias, exporter):
    found, model = with_changed_bias(FoldedNetwork().eval(), exporter, np.ones((2, 3), np.float32), "last.bias")
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 0
    assert (found.module, found.operator) == ("last", "Conv")


class Masked(nn.Module):
    """Hides the last value; a module, whose result is infinite there."""

    def forward(self, x):
        return x * 3 + torch.tensor([0, 0, -torch.inf])


class MaskedNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.mask = Masked()

    def forward(self, x):
        return self.mask(x).softmax(-1)


@pytest.mark.parametrize(("name", "value"), [("Mul", [4.0]), ("Add", [0, 0, -1e4])])
def test_a_module_whose_result_has_infinity_is_compared_too(tmp_path, name, value):
    network = MaskedNetwork().eval()
    export_network(network, SPEC, Export(exporter="torchscript", opset=18), tmp_path / "export")
    model = onnx.load(tmp_path / "export/model.onnx")
    sources = json.loads((tmp_path / "export/sources.json").read_text())
    inputs = {"x": np.ones((2, 3), np.float32)}
    assert first_difference(network, model, sources, inputs) is None
    model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), "other"))
    [node] = [node for node in model.graph.node if node.op_type == name]
    node.input[1] = "other"
    found = first_difference(network, model, sources, inputs)
    assert found is not None and (found.module, found.operator) == ("mask", "Add")
