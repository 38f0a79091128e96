"""Networks in half precision become float32 networks, whatever dtypes their code names."""

import copy
import importlib
import sys

import numpy as np
import pytest
import torch
from torch import nn

from onnx_release.core.params import Export
from onnx_release.export.export import export_network
from onnx_release.network.arguments import take_by_name
from onnx_release.network.half_precision import bring_to_float32
from onnx_release.network.network import run_network
from onnx_release.runtime.session import open_session, run_session


class Half(nn.Module):
    """Names its dtype in each of the usual ways."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        x = self.first(x.half()) + torch.ones(4, dtype=torch.float16)
        return self.third(self.second(x.to(torch.float16)).type(torch.float16)).float()


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layer(x)


class ByName(Autocast):
    def forward(self, x):
        return torch.sigmoid(self.layer(x).to(torch.bfloat16)).float()


@pytest.fixture
def spec(make_spec):
    return make_spec({"x": ["batch", 4]}, {"y": ["batch", 4]}, batch=(1, 4, 2))


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_network_in_float16_runs_in_float32_and_is_exported(exporter, spec, tmp_path, capsys):
    torch.manual_seed(0)
    network = Half().half().eval()
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    weights = [tensor.numpy().astype(np.float64) for tensor in network.state_dict().values()]
    wanted = x.astype(np.float64) @ weights[0].T + weights[1] + 1
    wanted = (wanted @ weights[2].T + weights[3]) @ weights[4].T + weights[5]
    bring_to_float32(network, spec)
    assert "note: the network's weights are in float16: they are converted to float32" in capsys.readouterr().err
    np.testing.assert_allclose(run_network(network, spec, {"x": x})["y"], wanted, atol=1e-5)
    export_network(network, spec, Export(exporter=exporter, opset=18), tmp_path / "export")
    found = run_session(open_session(tmp_path / "export/model.onnx"), {"x": x})["y"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_inputs_and_outputs_declared_in_float16_stay_so(spec):
    tensors = {kind: [getattr(spec, kind)[0].model_copy(update={"dtype": "float16"})] for kind in ("inputs", "outputs")}
    spec = spec.model_copy(update=tensors)
    network = nn.Linear(4, 4).half().eval()
    bring_to_float32(network, spec)
    result = network(torch.ones(2, 4, dtype=torch.float16))
    assert result.dtype == torch.float16


def test_bfloat16_is_converted_and_float64_kept(spec, capsys):
    network = nn.Sequential(nn.Linear(4, 4).bfloat16(), nn.Linear(4, 4).double())
    bring_to_float32(network, spec)
    assert [tensor.dtype for tensor in network.parameters()] == [torch.float32] * 2 + [torch.float64] * 2
    assert "in bfloat16" in capsys.readouterr().err


def test_a_network_in_float32_is_left_alone(spec, capsys):
    network = nn.Linear(4, 4)
    bring_to_float32(network, spec)
    assert "forward" not in vars(network)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("network", [Autocast(), ByName()], ids=["autocast", "by name"])
def test_a_network_that_only_computes_in_half_precision_computes_in_float32(network, spec, tmp_path, capsys):
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    wanted = network.layer(x).detach()
    wanted = wanted if type(network) is Autocast else torch.sigmoid(wanted)
    bring_to_float32(network.eval(), spec)
    assert capsys.readouterr().err == "note: the network computes in bfloat16: this is converted to float32\n"
    np.testing.assert_allclose(run_network(network, spec, {"x": x.numpy()})["y"], wanted, atol=1e-6)
    export_network(network, spec, Export(exporter="dynamo", opset=18), tmp_path / "export")
    found = run_session(open_session(tmp_path / "export/model.onnx"), {"x": x.numpy()})["y"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_network_that_names_half_precision_is_captured_strictly_in_float32(spec):
    network = ByName().eval()
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    wanted = torch.sigmoid(network.layer(x))
    bring_to_float32(network, spec)
    torch.testing.assert_close(torch.export.export(network, (x,), strict=True).module()(x), wanted)


@pytest.mark.parametrize("network", [Autocast(), Half().half()], ids=["float32", "float16"])
def test_a_copy_of_the_network_computes_with_its_own_weights(network, spec):
    bring_to_float32(network.eval(), spec)
    x = torch.ones(2, 4)
    wanted = network(x)
    copied = copy.deepcopy(network)
    for weight in copied.parameters():
        nn.init.zeros_(weight)
    assert not copied(x).any()
    assert torch.equal(network(x), wanted)


def test_a_network_of_an_installed_package_computes_in_float32(spec, tmp_path, monkeypatch, capsys):
    package = tmp_path / "site-packages/halfnet"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Linear):\n    def forward(self, x):\n"
        "        return super().forward(x).bfloat16().float()\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    network = importlib.import_module("halfnet").Net(4, 4).eval()
    monkeypatch.delitem(sys.modules, "halfnet")
    bring_to_float32(network, spec)
    assert "computes in bfloat16" in capsys.readouterr().err
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    assert torch.equal(network(x), nn.functional.linear(x, network.weight, network.bias))


def test_the_run_that_looks_for_half_precision_changes_no_buffer_and_copies_no_weight(spec):
    class Counting(nn.Linear):
        runs: torch.Tensor

        def __init__(self):
            super().__init__(4, 4)
            self.register_buffer("runs", torch.zeros(1))

        def forward(self, x):
            self.runs += 1
            seen.append(self.weight)
            return super().forward(x)

    seen: list[torch.Tensor] = []
    network = Counting().eval()
    bring_to_float32(network, spec)
    assert network.runs == 0 and [weight is network.weight for weight in seen] == [True]


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_half_precision_is_found_beside_tensors_that_autograd_computed(spec, capsys):
    class Computed(ByName):
        scale: torch.Tensor

        def __init__(self):
            super().__init__()
            self.layer = nn.utils.weight_norm(self.layer)
            computed = 2 * torch.ones(1, requires_grad=True)
            self.register_buffer("scale", computed)
            self.tables = [computed + 1]

        def forward(self, x):
            self.scale += 1
            return super().forward(x)

    network = Computed().eval()
    scale = network.scale.tolist()
    bring_to_float32(network, spec)
    assert "computes in bfloat16" in capsys.readouterr().err
    assert network.scale.tolist() == scale


def test_the_run_that_looks_for_half_precision_changes_nothing_behind_a_forward_that_was_set(make_spec):
    class Steps(nn.Module):
        runs: torch.Tensor

        def __init__(self):
            super().__init__()
            self.register_buffer("runs", torch.zeros(1))
            self.forward = self.step

        def step(self, x, state):
            self.runs += 1
            return x - state

    network = Steps().eval()
    take_by_name(network, ["state", "x"])
    bring_to_float32(network, make_spec({"state": [1], "x": [1]}, {"y": [1]}))
    assert network.runs == 0
    assert network(torch.ones(1), torch.zeros(1)) == -1 and network.runs == 1


def test_code_that_names_half_precision_and_does_not_use_it_changes_nothing(spec, capsys):
    class Unused(Autocast):
        def forward(self, x):
            return self.layer(x)

    network = Unused().eval()
    bring_to_float32(network, spec)
    assert "forward" not in vars(network)
    assert capsys.readouterr().err == ""
