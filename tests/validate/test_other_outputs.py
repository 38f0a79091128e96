"""Outputs of whole numbers, outputs that do not count, and outputs whose size depends on values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from onnx_release.core.params import Export, Runtime, Validate
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Budget, Spec
from onnx_release.core.types import Sample
from onnx_release.data.samples import write_samples
from onnx_release.export.export import export_network
from onnx_release.network.reference import write_reference
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.validate.metrics import ValidateMetrics
from onnx_release.validate.validate import OutputErrors, validate

NET = ModelFiles("net")
BATCH = {"batch": {"min": 1, "max": 2, "example": 2}}
X = [[1.0, 0.9, -1.0], [0.1, 0.2, 0.3], [-1.0, 1.0, 0.0], [3.0, 1.0, 0.0]]


class Best(nn.Module):
    """x times a weight of 1, and the place of the largest."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        y = x * self.weight
        return y, y.argmax(-1)


class Positive(Best):
    """The numbers over a half, of which there are as many as there are."""

    def forward(self, x):
        y = x * self.weight
        return y[y > 0.5]


def spec_of(outputs: list[dict[str, Any]], **keys: Any) -> Spec:
    x = {"name": "x", "dtype": "float32", "shape": ["batch", 3]}
    content = {"task": "tensor", "sources": [], "variants": [], "dimensions": BATCH, "inputs": [x], "outputs": outputs}
    return Spec.model_validate({**content, **keys})


WHOLE: list[dict[str, Any]] = [
    {"name": "y", "dtype": "float32", "shape": ["batch", 3]},
    {"name": "best", "dtype": "int64", "shape": ["batch"]},
]
FOUND: list[dict[str, Any]] = [{"name": "found", "dtype": "float32", "shape": ["many"]}]


@pytest.fixture
def validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ValidateMetrics]:
    """Export a network, change its weight in the file, and validate that."""

    def run(network: nn.Module, spec: Spec, weight: list[float], budget: Budget | None) -> ValidateMetrics:
        monkeypatch.chdir(tmp_path)
        write_samples(NET.evaluation_samples, [Sample({"x": np.array(x, np.float32)}) for x in X], 9, spec)
        write_reference(network.eval(), spec, NET, seed=0)
        path = NET.variant("export")
        export_network(network, spec, Export(exporter="torchscript", opset=18), path.parent)
        proto = onnx.load(path)
        (stored,) = [item for item in proto.graph.initializer if numpy_helper.to_array(item).shape == (3,)]
        stored.CopyFrom(numpy_helper.from_array(np.array(weight, np.float32), stored.name))
        onnx.save(proto, path)
        model = OnnxModel(path, spec, Runtime(provider="cpu", intra_threads=1))
        data: Any = None  # the task has no answers
        return validate(model, data, NET, Validate(resamples=100, confidence=0.9, seed=0), budget)[0]

    return run


def test_whole_numbers_are_compared_by_their_share_of_equal_ones(validated):
    # By hand: the second weight makes the second number the largest in the first two samples of four, 0.9 * 1.2 > 1
    # and not 0.2 * 1.2 > 0.3, so three of four stay.
    metrics = validated(Best(), spec_of(WHOLE), [1, 1.2, 1], Budget(sqnr_db=10, agreement=0.8))
    assert metrics.agreement == 0.75
    assert metrics.failure == "0.75 of the samples keep PyTorch's answer, budget.agreement is 0.8"
    assert metrics.sqnr_db == metrics.outputs["y"].sqnr_db and metrics.outputs["y"].equal is None
    assert metrics.outputs["best"].equal is not None and metrics.outputs["best"].equal < 1


def test_a_float32_file_must_have_the_same_whole_numbers(validated):
    assert validated(Best(), spec_of(WHOLE), [1, 1, 1], None).passed
    assert "best is wrong" in validated(Best(), spec_of(WHOLE), [1, 1.2, 1], None).failure


def test_a_single_other_whole_number_is_a_fault_of_a_float32_file(validated):
    class Close(Best):
        def forward(self, x):  # of 9 whole numbers for each item 8 are the same whatever the weight
            return x, torch.cat([x.argsort(-1)] * 2 + [x[:, :2].long(), (x * self.weight).argmax(-1, True)], -1)

    best = {**WHOLE[1], "shape": ["batch", 9]}
    metrics = validated(Close(), spec_of([WHOLE[0], best]), [1, 1.2, 1], None)
    assert not metrics.passed and metrics.failure.startswith("best is wrong, and not merely rounded: off by 1")


def test_a_float32_file_may_differ_in_an_output_that_does_not_count(validated):
    outputs = [{**WHOLE[0], "counts": False}, WHOLE[1]]
    assert validated(Best(), spec_of(outputs), [5, 5, 5], None).passed
    failure = validated(Best(), spec_of(WHOLE), [5, 5, 5], None).failure
    assert failure.startswith("y is wrong") and "write `counts: false` beside the output" in failure


def test_another_number_of_results_is_a_failure_that_names_both_shapes(validated):
    spec = spec_of(FOUND, derived=["many"])
    assert validated(Positive(), spec, [1, 1, 1], None).passed
    for budget in (None, Budget(sqnr_db=10)):
        metrics = validated(Positive(), spec, [1, 0.1, 1], budget)
        assert not metrics.passed and metrics.sqnr_db is None
        assert "found has the shape [1] in the case batch=" in metrics.failure


def test_an_output_that_does_not_count_may_have_another_number_of_results(validated):
    class Both(Positive):
        def forward(self, x):
            return x * self.weight, super().forward(x)

    outputs = [WHOLE[0], {**FOUND[0], "counts": False}]
    metrics = validated(Both(), spec_of(outputs, derived=["many"]), [1, 0.4, 1], Budget(sqnr_db=1))
    assert metrics.passed and metrics.outputs["found"].sqnr_db is None


def test_where_pytorch_itself_finds_another_number_in_float64_its_float32_is_the_truth():
    errors = OutputErrors()
    errors.add("case", np.ones(3), np.ones(2, np.float32), np.full(2, 1.5, np.float32), 0.0)
    assert (errors.variant.max_abs, errors.torch.max_abs, errors.other_shape) == (0.5, 0.0, "")
