"""Infinity in PyTorch's answers, as of masked scores: a variant must have it at the same places."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from onnx_release.core.params import Export, Runtime, Validate
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Budget, Spec
from onnx_release.core.types import Sample, softmax_prediction
from onnx_release.data.samples import write_samples
from onnx_release.export.export import export_network
from onnx_release.network.reference import write_reference
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.validate.validate import validate

NET = ModelFiles("net")
SPEC = Spec.model_validate(
    {
        "task": "classification",
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}},
        "inputs": [{"name": name, "dtype": "float32", "shape": ["batch", 3]} for name in ("x", "mask")],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 3]}],
        "tolerance": {"torch_rounding_multiple": 4, "atol": 0.0, "rtol": 0.0},
    }
)
PARAMS = Validate(resamples=200, confidence=0.95, seed=0)
# In the second sample the likeliest class is masked.
ITEMS = [([1 / 3, 0.2, 0.0], [0, -np.inf, 0], 0), ([0.1, 0.9, 0.7], [0, -np.inf, 0], 2)]


class Masked(torch.nn.Module):
    def forward(self, x, mask):
        return x * 3.3 + mask


class Data:
    def samples(self, raw, split):
        yield from ()

    def preprocess(self, item):
        return item

    def postprocess(self, outputs):
        return softmax_prediction(outputs["logits"], top=3)


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = [({"x": np.array(x, np.float32), "mask": np.array(mask, np.float32)}, label) for x, mask, label in ITEMS]
    write_samples(NET.evaluation_samples, [Sample(inputs, label) for inputs, label in arrays], 10, SPEC)
    network = Masked().eval()
    write_reference(network, SPEC, NET, seed=0)
    export_network(network, SPEC, Export(exporter="torchscript", opset=18), NET.variant("export").parent)
    return NET.variant("export")


def check(path, budget=None):
    return validate(OnnxModel(path, SPEC, Runtime(provider="cpu", intra_threads=1)), Data(), NET, PARAMS, budget)


def with_least(model, least):
    """Write the model with no logit below `least`."""
    proto = onnx.load(model)
    for node in proto.graph.node:
        node.output[:] = ["all" if name == "logits" else name for name in node.output]
    proto.graph.node.append(helper.make_node("Max", ["all", "least"], ["logits"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(least, np.float32), "least"))
    path = model.with_name("changed.onnx")
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("budget", [None, Budget(agreement=1.0, sqnr_db=100)])
def test_the_same_infinity_is_no_error_and_the_figures_are_those_of_the_rest(model, budget):
    metrics, rows = check(model, budget)
    assert (metrics.passed, metrics.failure) == (True, "")
    assert 0 < metrics.max_abs_error < 1e-6 and metrics.sqnr_db > 120
    assert metrics.cosine == pytest.approx(1.0)
    assert (metrics.agreement, metrics.accuracy) == (1.0, 1.0)
    assert [row["variant_class"] for row in rows] == [0, 2]
    assert json.dumps(metrics.content(), allow_nan=False)


@pytest.mark.parametrize("budget", [None, Budget(agreement=0.5)])
@pytest.mark.parametrize("least", [-65504.0, -1e4])
def test_a_large_number_in_place_of_infinity_fails_and_is_named(model, least, budget):
    metrics, _ = check(with_least(model, least), budget)
    said = f"1 of the 3 values are not infinite as PyTorch's are: {least:g} in place of -inf"
    assert (metrics.passed, metrics.failure) == (False, f"of logits, {said} in the case batch=1")
    assert metrics.sqnr_db is None and json.dumps(metrics.content(), allow_nan=False)


def test_how_wrong_an_error_is_does_not_depend_on_infinity(model):
    proto = onnx.load(model)
    [product] = [node for node in proto.graph.node if node.op_type == "Mul"]
    product.op_type = "Sub"
    onnx.save(proto, model.with_name("wrong.onnx"))
    assert "logits is wrong, and not merely rounded: off by" in check(model.with_name("wrong.onnx"))[0].failure
