"""Operators that torch.onnx translates wrongly, exported at one size and run at others."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch._higher_order_ops.while_loop import while_loop
from torch.nn import functional

from onnx_release.export.dynamo import export_dynamo
from onnx_release.graph.activations import session_of
from onnx_release.network.example_inputs import example_inputs
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


class Masks(nn.Module):
    def forward(self, x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mask = torch.where(x > 0, index > 2, index < 1)
        either = torch.where(mask, True, torch.where(x < -1, index > 3, False))
        return torch.where(mask, x, -1.0), mask.to(torch.float32), torch.where(either, False, True).to(torch.float32)


class Extremes(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        def more(total, y):
            return total < 9

        def step(total, y):
            return total + y.abs().amax(), y * 1.5

        _, y = while_loop(more, step, (torch.tensor(0.0), x))
        return x.amax(), x.amin(), x.amax(-1), y


class Places(nn.Module):
    def forward(self, x: torch.Tensor, knots: torch.Tensor) -> tuple[torch.Tensor, ...]:
        one = torch.tensor([-1.0, 0.0, 0.0, 1.0])
        return (
            torch.searchsorted(knots, x),
            torch.searchsorted(knots, x, right=True),
            torch.searchsorted(knots, x, side="right", out_int32=True),
            torch.searchsorted(one, x),
        )


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
                np.testing.assert_allclose(
                    run_session(session, feed)[name], found.resolve_neg().numpy(), rtol=1e-5, atol=1e-6
                )
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


def test_a_choice_between_booleans_is_logic(compare):
    random = np.random.default_rng(0)
    shapes = [(1, 2), (8, 16)]
    cases = [(random.standard_normal(shape, np.float32), random.integers(0, 5, shape)) for shape in shapes]
    compare(
        Masks(),
        {"x": ["batch", "n"], "index": ["batch", "n"]},
        {"y": ["batch", "n"], "mask": ["batch", "n"], "neither": ["batch", "n"]},
        {"batch": (1, 8, 2), "n": (2, 16, 6)},
        cases,
        {"index": "int64"},
    )


def test_the_extremes_of_a_whole_tensor_convert_in_a_loop_too(compare):
    random = np.random.default_rng(0)
    compare(
        Extremes(),
        {"x": ["batch", 4]},
        {"high": [], "low": [], "rows": ["batch"], "y": ["batch", 4]},
        {"batch": (1, 8, 2)},
        [(random.standard_normal((size, 4), np.float32),) for size in (1, 8)],
    )


def test_places_among_sorted_values_are_counted(compare):
    knots = np.sort(np.random.default_rng(0).standard_normal((4, 5), np.float32))
    x = np.concatenate([knots[:, 1:3], np.full((4, 1), 9, np.float32)], 1)  # equal to knots, and above all
    compare(
        Places(),
        {"x": ["batch", 3], "knots": ["batch", 5]},
        {"left": ["batch", 3], "right": ["batch", 3], "side": ["batch", 3], "one": ["batch", 3]},
        {"batch": (1, 4, 2)},
        [(x, knots), (x[:1] * 0, knots[:1])],
    )


class Conjugates(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        spectrum = torch.fft.rfft(x)
        return spectrum.conj().imag, (spectrum.conj() * spectrum).real


def test_the_imaginary_part_of_a_conjugate_is_negated(compare):
    random = np.random.default_rng(0)
    compare(
        Conjugates(),
        {"x": ["batch", 8]},
        {"imaginary": ["batch", 5], "power": ["batch", 5]},
        {"batch": (1, 4, 2)},
        [(random.standard_normal((size, 8), np.float32),) for size in (1, 4)],
    )
