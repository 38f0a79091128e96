"""Operators that torch.onnx translates wrongly, exported at one size and run at others."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from onnx_release.export.dynamo import export_dynamo
from onnx_release.export.example_inputs import example_inputs
from onnx_release.graph.activations import session_of
from onnx_release.runtime.session import run_session


class Pools(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            functional.adaptive_avg_pool2d(x, 3),
            functional.adaptive_avg_pool2d(x, (2, None)),
            functional.adaptive_avg_pool1d(x[:, :, 0], 5),
        )


class Means(nn.Module):
    def forward(self, x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        start = torch.full((x.shape[0], 5), 0.5)
        scattered = [start.scatter_reduce(1, index, x, "mean", include_self=own) for own in (True, False)]
        return *scattered, start.scatter_reduce(1, index, x, "amax", include_self=False)


@pytest.fixture
def compare(make_spec, tmp_path):
    """Export the network at the example sizes, and compare its answers with PyTorch's at others."""

    def at(network, inputs, outputs, dimensions, cases, dtypes=None):
        spec = make_spec(inputs, outputs, **dimensions)
        for name, dtype in (dtypes or {}).items():
            tensors = [one.model_copy(update={"dtype": dtype}) if one.name == name else one for one in spec.inputs]
            spec = spec.model_copy(update={"inputs": tensors})
        sizes = {name: bounds.example for name, bounds in spec.dimensions.items()}
        model, _ = export_dynamo(network, spec, example_inputs(spec, sizes), 18, tmp_path)
        session = session_of(model)
        for arrays in cases:
            feed = dict(zip(inputs, arrays, strict=True))
            wanted = network(*map(torch.from_numpy, arrays))
            for name, found in zip(outputs, wanted, strict=True):
                np.testing.assert_allclose(run_session(session, feed)[name], found.numpy(), rtol=1e-5, atol=1e-6)
        return model

    return at


def test_adaptive_pools_follow_the_size(compare):
    random = np.random.default_rng(0)
    shapes = [(1, 3, 8, 8), (4, 3, 17, 9), (3, 3, 32, 5)]
    compare(
        Pools(),
        {"x": ["batch", 3, "height", "width"]},
        {"square": ["batch", 3, 3, 3], "half": ["batch", 3, 2, "width"], "row": ["batch", 3, 5]},
        {"batch": (1, 4, 2), "height": (8, 32, 16), "width": (5, 32, 20)},
        [(random.standard_normal(shape, np.float32),) for shape in shapes],
    )


def test_the_mean_of_a_scatter_is_divided(compare):
    random = np.random.default_rng(0)
    compare(
        Means(),
        {"x": ["batch", "n"], "index": ["batch", "n"]},
        {"own": ["batch", 5], "others": ["batch", 5], "largest": ["batch", 5]},
        {"batch": (1, 8, 2), "n": (2, 16, 6)},
        [
            (random.standard_normal(shape, np.float32), random.integers(0, 5, shape))
            for shape in [(1, 2), (8, 16), (2, 6)]
        ],
        {"index": "int64"},
    )


def test_a_global_pool_stays_the_operator_of_onnx(compare):
    model = compare(
        nn.AdaptiveAvgPool2d(1),
        {"x": ["batch", 3, "height", 8]},
        {"y": ["batch", 3, 1, 1]},
        {"batch": (1, 4, 2), "height": (8, 32, 16)},
        [],
    )
    assert isinstance(model, onnx.ModelProto)
    assert [node.op_type for node in model.graph.node] == ["ReduceMean"]
