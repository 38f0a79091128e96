"""Every operator computes in float64, whatever the network asks for, and the network is as before afterwards."""

import numpy as np
import pytest
import torch
from torch import nn

from onnx_release.network.float64 import Float64Mode, in_float64
from onnx_release.network.network import run_network
from onnx_release.network.operators import eager_operators

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
THIRD = np.float32(1 / 3)


@pytest.fixture
def spec(make_spec):
    return make_spec({"x": ["batch", 4]}, {"y": ["batch", 4]}, batch=(1, 4, 2))


def in_both(network, spec, x=X):
    """The outputs in float32 and in float64, and the operators without float64."""
    without_float64: dict[str, None] = {}
    float32 = run_network(network.eval(), spec, {"x": x})["y"]
    with in_float64(network), Float64Mode(without_float64):
        float64 = run_network(network, spec, {"x": x}, torch.float64)["y"]
    assert float64.dtype == np.float64
    assert torch.get_default_dtype() == torch.float32
    np.testing.assert_allclose(float64, float32, atol=1e-5)
    return float32, float64, list(without_float64)


class Casts(nn.Module):
    def forward(self, x):
        return (x.float() / 3).to(torch.float32).half().float() * torch.full((4,), 0.1, dtype=torch.float32)


class Integers(nn.Module):
    def forward(self, x):
        return x * (torch.ones(4, dtype=torch.int64) / 3)


class Constants(nn.Module):
    def __init__(self):
        super().__init__()
        self.plain = torch.tensor([THIRD] * 4)

    def forward(self, x):
        return x * self.plain + torch.from_numpy(np.full(4, THIRD))


class Cache(nn.Module):
    """A plain attribute that a view of it writes to."""

    def __init__(self):
        super().__init__()
        self.cache = torch.zeros(8)

    def forward(self, x):
        self.cache[4:].copy_(x.mean(0))
        return x + self.cache[4:]


class Branches(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 9, lambda x: x, lambda x: x.float() / 3, (x,))


@pytest.mark.parametrize(
    ("network", "exact"),
    [
        (Integers(), lambda x: x * (1 / 3)),
        (Constants(), lambda x: x * np.float64(THIRD) + np.float64(THIRD)),
        (Cache(), lambda x: x + x.mean(0)),
        (Branches(), lambda x: x / 3),
    ],
    ids=["integers", "constants", "cache", "cond"],
)
def test_nothing_on_the_way_is_float32(network, exact, spec):
    float32, float64, without = in_both(network, spec)
    np.testing.assert_allclose(float64, exact(X.astype(np.float64)), rtol=1e-14)
    assert not np.array_equal(float32, float64)
    assert without == []


def test_a_cast_to_less_is_none(spec):
    network = Casts()
    with in_float64(network), Float64Mode({}):
        found = run_network(network, spec, {"x": X}, torch.float64)["y"]
    np.testing.assert_allclose(found, X.astype(np.float64) / 3 * 0.1, rtol=1e-14)


def test_complex_buffers_keep_their_imaginary_parts(spec):
    class Rotated(nn.Module):
        turn: torch.Tensor

        def __init__(self):
            super().__init__()
            self.register_buffer("turn", torch.polar(torch.ones(2), torch.tensor([0.5, 1.0])))

        def forward(self, x):
            return torch.view_as_real(torch.view_as_complex(x.reshape(-1, 2, 2)) * self.turn).flatten(1)

    network = Rotated()
    turn = network.turn.clone()
    _, float64, _ = in_both(network, spec)
    pairs = X.astype(np.float64).reshape(-1, 2, 2)
    wanted = (pairs[..., 0] + 1j * pairs[..., 1]) * turn.numpy().astype(np.complex128)
    np.testing.assert_allclose(float64[:, ::2], wanted.real, rtol=1e-12)
    np.testing.assert_allclose(float64[:, 1::2], wanted.imag, rtol=1e-12)
    assert network.turn.dtype == torch.complex64
    assert torch.equal(network.turn, turn)


def test_weights_that_were_float64_stay_so_and_the_others_are_as_before(spec):
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).double())
    before = [tensor.clone() for tensor in network.parameters()]
    with in_float64(network):
        assert {tensor.dtype for tensor in network.parameters()} == {torch.float64}
    assert all(
        new.dtype == old.dtype and torch.equal(new, old) for new, old in zip(network.parameters(), before, strict=True)
    )


@torch.library.custom_op("onnx_release_tests::only_float32", mutates_args=())
def only_float32(x: torch.Tensor) -> torch.Tensor:
    if x.dtype != torch.float32:
        raise ValueError("float32 only")
    return x * 2


def test_an_operator_without_float64_gives_its_float32_result_and_is_named(spec):
    class Custom(nn.Module):
        def forward(self, x):
            return torch.ops.onnx_release_tests.only_float32(x) / 3

    _, float64, without = in_both(Custom(), spec)
    np.testing.assert_allclose(float64, X.astype(np.float64) * 2 / 3, rtol=1e-14)
    assert without == ["onnx_release_tests.only_float32.default"]


def test_bits_are_those_of_float32(spec):
    class Rounded(nn.Module):
        def forward(self, x):
            return (x.view(torch.int32) & -65536).view(torch.float32)

    float32, float64, _ = in_both(Rounded(), spec)
    assert np.array_equal(float32, float64)


def test_an_error_that_is_not_about_the_dtype_is_the_operators_own(spec):
    with in_float64(nn.Identity()), Float64Mode({}), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.ones(3, 4) @ torch.ones(3, 4)


def test_scripted_and_exported_networks_compute_in_float64_too(spec):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sigmoid()).eval()
    _, wanted, _ = in_both(network, spec)
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    for other in (
        torch.jit.script(network),
        torch.export.export(network, (torch.ones(2, 4),), dynamic_shapes=dynamic).module(),
    ):
        with in_float64(other), Float64Mode({}):
            found = run_network(other, spec, {"x": X}, torch.float64)["y"]
        np.testing.assert_allclose(found, wanted, rtol=1e-13)


def test_the_fused_layer_of_torch_is_off_only_inside():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x, padding = torch.ones(1, 3, 8), torch.tensor([[False, False, True]])
    with torch.no_grad():
        encoder = nn.TransformerEncoder(layer, 1)
        fused = encoder(x, src_key_padding_mask=padding)
        with eager_operators():
            plain = encoder(x, src_key_padding_mask=padding)
    assert not fused[0, 2].any()
    assert plain[0, 2].any()
    assert torch.backends.mha.get_fastpath_enabled()
