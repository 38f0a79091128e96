"""The doctor names each usual mistake with its line and its fix, and finds nothing in a healthy network."""

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from onnx_release.core.errors import ExportError
from onnx_release.core.params import Export
from onnx_release.core.spec import Spec, load_spec
from onnx_release.export.doctor.convert import examine_conversion
from onnx_release.export.doctor.doctor import double_inputs, examine, refuse_errors
from onnx_release.export.doctor.findings import Finding, Patient
from onnx_release.export.doctor.lines import build_line, spec_line
from onnx_release.export.export import export_network
from onnx_release.export.opsets import newer_operators
from onnx_release.graph.graph import load_model
from onnx_release.network.network import network_as_built
from tests.imports import ROOT

DYNAMO, TORCHSCRIPT = (Export(exporter=name, opset=18) for name in ("dynamo", "torchscript"))
BOTH = pytest.mark.parametrize("params", [DYNAMO, TORCHSCRIPT], ids=["dynamo", "torchscript"])
NOWHERE = Path("models/nowhere")
# Level and what was found, by line.
Found = dict[str, tuple[str, str]]


class Healthy(nn.Module):
    """What looks like a mistake and is none: eval-mode dropout and batch norms, sizes used as they are."""

    scale: torch.Tensor

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.batch_norm = nn.BatchNorm1d(8)
        self.instance_norm = nn.InstanceNorm1d(8)
        self.dropout = nn.Dropout()
        self.register_buffer("scale", torch.full((8,), 2.0))

    def forward(self, x):
        if x.shape[1] != 8:
            raise ValueError("eight columns")
        hidden = self.dropout(self.batch_norm(self.linear(x)))
        hidden = self.instance_norm(hidden[:, None].expand(-1, 8, -1)).mean(1)
        hidden = functional.scaled_dot_product_attention(hidden[None], hidden[None], hidden[None])[0]
        return torch.where(hidden > 0, hidden, 0.0) * self.scale + torch.zeros(x.shape[0], 8) + 1 / 2**0.5


class Doubles(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.from_numpy(np.arange(8.0)))  # the float64 buffer
        self.table = nn.Parameter(torch.ones(8, dtype=torch.float64))  # the float64 parameter

    def forward(self, x):
        steps = torch.arange(8, dtype=torch.float64)  # where float64 begins
        later = steps * 2 + 1
        return (x + self.shift + self.table + later).float()


class DoubleLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8).double()  # float64 that fails

    def forward(self, x):
        return self.layer(x)  # the two do not multiply


class Dropping(nn.Module):
    def forward(self, x):
        return functional.dropout(x, 0.5)  # training is True


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)  # noise


class Caching(nn.Module):
    """A cache for the largest size so far, as rotary embeddings have it."""

    cache: torch.Tensor | None = None

    def forward(self, x):
        if self.cache is None or self.cache.shape[0] < x.shape[0]:
            self.cache = torch.arange(1, x.shape[0] + 1, dtype=x.dtype)[:, None]
        return torch.instance_norm(
            (x * self.cache[: x.shape[0]])[:, None], None, None, None, None, True, 0, 1e-5, False
        )[:, 0]


class OwnStatistics(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)

    def forward(self, x):
        return self.norm(x)  # of the batch


class Moving(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x):
        mean, var = self.norm.running_mean, self.norm.running_var
        return functional.batch_norm(x, mean, var, self.norm.weight, self.norm.bias, training=True)  # moves


class Counting(nn.Module):
    calls: torch.Tensor
    total: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        self.calls += 1  # nothing reads it
        self.total.add_(1)  # the answer has it
        self.last = x.sum()  # replaced by forward
        return x + self.total


class BoolWhere(nn.Module):
    def forward(self, x):
        return x * torch.where(x > 0, True, x < -1)  # between booleans


class IntWhere(nn.Module):
    def forward(self, x):
        return torch.where(x > 0, 1, 0)  # int64


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(8, 8)
        self.idle = nn.Sequential(nn.Linear(8, 8))  # left out of forward

    def forward(self, x):
        return self.used(x)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight  # tied

    def forward(self, x):
        return self.second(self.first(x))


class ValueBranch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:  # a branch on a value
            return x
        return -2 * x


class SizeBranch(nn.Module):
    def forward(self, x):
        if x.shape[0] > 2:  # a branch on a size
            return x
        return 2 * x


class SizeLoop(nn.Module):
    def forward(self, x):
        total = x
        for _ in range(x.shape[0]):
            total = total + x  # a loop over a size
        return total


class OneSize(nn.Module):
    def forward(self, x):
        return x * torch.ones(2, 8)  # for one size


class Halves(nn.Module):
    """A size that torch.export follows and a trace does not."""

    def forward(self, x):
        return x * math.ceil(x.shape[0] / 2)  # half a size


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)  # does not convert


class Mish(nn.Module):
    def forward(self, x):
        return functional.mish(functional.pad(x, (1, 1))[:, 1:-1])  # newer than opset 17


class Chosen(nn.Module):
    """torch.cond, which is what the doctor says to use."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return torch.cond(x.sum() > 0, self.left, self.right, (x,))


class InPlace(nn.Module):
    def forward(self, x):
        x.sub_(0.5).div_(0.25)
        x[:, 0] = 0
        return x + 1


class Hooked(nn.Module):
    """Puts a hook into its layer in its first run and notes it, as networks of transformers do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.hooked = False

    def forward(self, x):
        if not self.hooked:
            self.layer.register_forward_hook(lambda *given: given[2] + 1)
            self.hooked = True
        return self.layer(x)


def line_of(text: str) -> str:
    """FILE:LINE of the only line of this file, above this function, that holds `text`."""
    lines = Path(__file__).read_text().splitlines()[: inspect.getsourcelines(line_of)[1] - 1]
    (number,) = [number for number, line in enumerate(lines, 1) if text in line]
    return f"tests/export/test_doctor.py:{number}"


@pytest.fixture
def rows_spec(make_spec):
    return make_spec({"x": ["batch", 8]}, {"y": ["batch", 8]}, batch=(1, 9, 2))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def found(network: nn.Module, spec: Spec, params: Export = DYNAMO) -> Found:
    """Every finding; each has a fix and a line of its own."""
    findings = examine(Patient(network.eval(), spec, params, NOWHERE))
    assert all(finding.fix for finding in findings)
    result: Found = {finding.where: (finding.level, finding.what) for finding in findings}
    assert len(result) == len(findings)
    return result


def expect(findings: Found, *expected: tuple[str, str, str]) -> None:
    """Exactly one finding for each level, text and marked line."""
    assert sorted(findings) == sorted(line_of(marker) for _, _, marker in expected)
    for level, text, marker in expected:
        assert findings[line_of(marker)][0] == level
        assert text in findings[line_of(marker)][1]


@BOTH
def test_nothing_is_found_in_a_healthy_network(params, rows_spec):
    assert found(Healthy(), rows_spec, params) == {}


@BOTH
def test_a_cache_is_no_finding_and_is_not_left_behind(params, rows_spec):
    network = Caching()
    assert found(network, rows_spec, params) == {}
    assert network.cache is None


def test_torch_cond_is_no_finding_and_is_exported(rows_spec, tmp_path):
    assert found(Chosen(), rows_spec) == {}
    export_network(Chosen().eval(), rows_spec, DYNAMO, tmp_path / "out")
    assert "If" in {node.op_type for node in load_model(tmp_path / "out/model.onnx").graph.node}


@BOTH
@pytest.mark.parametrize("network", [InPlace(), Hooked()], ids=["in place", "hooks"])
def test_neither_a_changed_input_nor_a_hook_is_a_finding(params, network, rows_spec):
    assert found(network, rows_spec, params) == {}
    assert not getattr(network, "hooked", False)
    assert not any(module._forward_hooks for module in network.modules())


class Masked(nn.Module):
    def forward(self, x, hidden):
        if bool(hidden.all()):
            raise ValueError("nothing to see")
        return torch.where(hidden, 0.0, x)


def test_a_mask_that_hides_everything_is_not_tried_where_there_are_samples(make_spec):
    spec = make_spec({"x": ["batch", 4], "hidden": ["batch", 4]}, {"y": ["batch", 4]}, batch=(1, 9, 2))
    spec.inputs[1] = spec.inputs[1].model_copy(update={"dtype": "bool"})
    sample = {"x": np.ones(4, np.float32), "hidden": np.array([False, False, True, True])}
    (finding,) = examine(Patient(Masked().eval(), spec, DYNAMO, NOWHERE))
    assert "the network fails" in finding.what
    findings = examine(Patient(Masked().eval(), spec, DYNAMO, NOWHERE, [sample]))
    assert not any("the network fails" in finding.what for finding in findings)


@BOTH
def test_nothing_is_found_in_the_digits(params, digits_raw):
    network, folder = network_as_built("digits_cnn", digits_raw), ROOT / "models/digits_cnn"
    spec = load_spec("digits_cnn")
    assert examine(Patient(network, spec, params, folder)) == []
    assert examine_conversion(Patient(network, spec, params, folder)) == []


@BOTH
def test_nothing_is_found_in_a_transformer(params, make_spec):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = transformers.BertModel(config)

        def forward(self, ids, mask, types):
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)

    shape = ["batch", "length"]
    spec = make_spec(
        dict.fromkeys(("ids", "mask", "types"), shape),
        {"hidden": [*shape, 32], "pooled": ["batch", 32]},
        batch=(1, 5, 2),
        length=(2, 40, 8),
    )
    spec = spec.model_copy(update={"inputs": [tensor.model_copy(update={"dtype": "int64"}) for tensor in spec.inputs]})
    assert found(Encoder(), spec, params) == {}


def test_nothing_is_found_in_a_convolution_of_any_height_and_width(make_spec):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Upsample(scale_factor=2))
    spec = make_spec(
        {"x": ["batch", 3, "height", "width"]},
        {"y": ["batch", 4, "tall", "wide"]},
        batch=(1, 4, 2),
        height=(4, 20, 6),
        width=(4, 20, 7),
        tall=(8, 40, 12),
        wide=(8, 40, 14),
    )
    assert found(network, spec) == {}


def test_training_mode_is_found_at_the_end_of_build_and_the_network_stays_as_it_was(tmp_path, rows_spec):
    (tmp_path / "network.py").write_text("def build(raw):\n    network = ...\n    return network\n")
    network = Healthy().eval()
    network.dropout.train()
    (finding,) = examine(Patient(network, rows_spec, DYNAMO, tmp_path))
    assert (finding.level, finding.where) == ("error", f"{tmp_path.as_posix()}/network.py:3")
    assert "in training mode: dropout (Dropout)" in finding.what
    assert "return network.eval()" in finding.fix
    assert [module.training for module in network.children()] == [False, False, False, True]


def test_a_fixed_batch_is_found_in_the_spec(tmp_path, make_spec):
    (tmp_path / "spec.yaml").write_text("inputs:\n  - {name: other}\n  - {name: x, shape: [1, 8]}\n")
    (finding,) = examine(Patient(nn.ReLU().eval(), make_spec({"x": [1, 8]}, {"y": [1, 8]}), DYNAMO, tmp_path))
    assert (finding.level, finding.where) == ("warning", f"{tmp_path.as_posix()}/spec.yaml:3")
    assert "the batch is fixed at 1" in finding.what


def test_float64_is_found_where_it_is_made(rows_spec):
    expect(
        found(Doubles(), rows_spec),
        ("warning", "float64 in the network: shift", "the float64 buffer"),
        ("warning", "float64 in the network: table", "the float64 parameter"),
        ("warning", "aten.arange", "where float64 begins"),
    )


def test_float64_that_makes_the_network_fail_is_an_error(rows_spec):
    expect(
        found(DoubleLinear(), rows_spec),
        ("error", "float64 in the network: layer.weight, layer.bias", "float64 that fails"),
        ("error", "the network fails in PyTorch itself at batch=2", "the two do not multiply"),
    )


def test_float64_inputs_are_found():
    inputs: dict[str, np.ndarray] = {"x": np.zeros(8), "y": np.zeros(8, np.float32)}
    (finding,) = double_inputs(inputs, "models/a/data.py:3")
    assert (finding.level, finding.where) == ("error", "models/a/data.py:3")
    assert "the input x in float64" in finding.what
    assert "astype(np.float32)" in finding.fix


@pytest.mark.parametrize(
    ("network", "text", "marker"),
    [
        (Dropping(), "dropout is still active", "training is True"),
        (Noisy(), "aten.randn_like.default draws random numbers", "# noise"),
        (OwnStatistics(), "computes mean and variance from the batch", "of the batch"),
        (Moving(), "computes mean and variance from the batch", "# moves"),
        (IntWhere(), "y is int64 where float32 is declared", "# int64"),
        (OneSize(), "fails in PyTorch itself at batch=3", "for one size"),
    ],
)
def test_an_operator_is_found_at_its_line(network, text, marker, rows_spec):
    expect(found(network, rows_spec), ("error", text, marker))


def test_batch_norms_and_buffers_are_as_before(rows_spec):
    for network in (Moving(), Counting()):
        before = {name: tensor.clone() for name, tensor in network.named_buffers()}
        identities = {name: id(tensor) for name, tensor in network.named_buffers()}
        found(network, rows_spec)
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.named_buffers())
        assert identities == {name: id(tensor) for name, tensor in network.named_buffers()}


def test_a_buffer_that_changes_is_an_error_where_the_answer_has_it(rows_spec):
    expect(
        found(Counting(), rows_spec),
        ("warning", "a run changes calls", "nothing reads it"),
        ("error", "a run changes total", "the answer has it"),
        ("warning", "a run changes last", "replaced by forward"),
    )


def test_a_weight_that_is_never_used_is_found_and_the_file_has_it_not(rows_spec, tmp_path):
    expect(found(Idle(), rows_spec), ("warning", "never uses idle.0.weight, idle.0.bias", "left out of forward"))
    export_network(Idle().eval(), rows_spec, DYNAMO, tmp_path / "out")
    assert len(load_model(tmp_path / "out/model.onnx").graph.initializer) == 2


@BOTH
def test_a_shared_weight_is_found_and_the_file_has_it_once(params, rows_spec, tmp_path):
    expect(
        found(Tied(), rows_spec, params), ("warning", "first.weight and second.weight are the same weight", "# tied")
    )
    export_network(Tied().eval(), rows_spec, params, tmp_path / "out")
    initializers = load_model(tmp_path / "out/model.onnx").graph.initializer
    assert [tuple(tensor.dims) for tensor in initializers].count((8, 8)) == 1


@BOTH
@pytest.mark.parametrize(
    ("network", "marker"),
    [
        (ValueBranch(), "a branch on a value"),
        (SizeBranch(), "a branch on a size"),
        (SizeLoop(), "a loop over a size"),
    ],
    ids=["value", "size", "loop"],
)
def test_control_flow_that_the_export_fixes_is_found_at_its_line(params, network, marker, rows_spec):
    expect(found(network, rows_spec, params), ("error", "the export fixes a branch", marker))


def test_only_the_exporter_that_loses_a_size_is_blamed(rows_spec):
    expect(found(Halves(), rows_spec, TORCHSCRIPT), ("error", "returns other values than eager", "half a size"))
    assert found(Halves(), rows_spec, DYNAMO) == {}


def test_a_mistake_is_found_in_a_network_of_torchs_modules_alone(rows_spec):
    network = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, track_running_stats=False))
    (finding,) = examine(Patient(network.eval(), rows_spec, DYNAMO, NOWHERE))
    assert finding.where == build_line(NOWHERE) == "models/nowhere/spec.yaml:1"


@BOTH
def test_an_operator_that_does_not_convert_is_named_with_its_line(params, rows_spec):
    (finding,) = examine_conversion(Patient(Bessel().eval(), rows_spec, params, NOWHERE))
    assert (finding.level, finding.where) == ("error", line_of("does not convert"))
    assert "bessel_j0" in finding.what.partition("does not convert to ONNX")[0]
    assert "simpler operators" in finding.fix


@BOTH
def test_the_torch_where_that_is_an_error_really_fails(params, rows_spec):
    patient = Patient(BoolWhere().eval(), rows_spec, params, NOWHERE)
    fails = params.exporter == "torchscript"
    assert bool(examine_conversion(patient)) == fails
    assert (line_of("between booleans") in [finding.where for finding in examine(patient)]) == fails


def test_each_operator_that_an_opset_lacks_is_named_with_its_line_and_opset(rows_spec):
    params = Export(exporter="dynamo", opset=17)
    findings = examine_conversion(Patient(Mish().eval(), rows_spec, params, NOWHERE))
    assert {finding.where for finding in findings} == {line_of("newer than opset 17")}
    assert [finding.what for finding in findings] == [
        "opset 17 is too low: Pad changed with opset 18, and onnx cannot rewrite it",
        "opset 17 is too low: Mish exists since opset 18",
    ]
    assert all("export.opset to 18 or higher" in finding.fix for finding in findings)
    assert examine_conversion(Patient(Mish().eval(), rows_spec, DYNAMO, NOWHERE)) == []


def test_an_export_to_too_low_an_opset_names_the_operators(rows_spec, tmp_path):
    with pytest.raises(ExportError, match=rf"Mish exists since opset 18: {line_of('newer than opset 17')}"):
        export_network(Mish().eval(), rows_spec, Export(exporter="dynamo", opset=17), tmp_path / "out")


def test_an_operator_that_onnx_can_rewrite_is_none_of_them(rows_spec, tmp_path):
    export_network(nn.Linear(8, 8).eval(), rows_spec, DYNAMO, tmp_path / "out")
    assert newer_operators(load_model(tmp_path / "out/model.onnx"), 13, {}) == []


def test_errors_are_one_message_with_every_line_and_mend():
    errors = [Finding("error", f"what {i}", f"a.py:{i}", f"fix {i}") for i in range(2)]
    warning = Finding("warning", "harmless", "b.py:1", "none")
    refuse_errors([warning])
    with pytest.raises(ExportError) as caught:
        refuse_errors([*errors, warning])
    for part in ("a.py:0: what 0\n  fix: fix 0", "a.py:1: what 1\n  fix: fix 1"):
        assert part in str(caught.value)
    assert "harmless" not in str(caught.value)


def test_a_doctor_that_cannot_watch_says_so_and_stops_nothing(rows_spec, monkeypatch):
    def fail(*_):
        raise RuntimeError("no watch")

    monkeypatch.setattr("onnx_release.export.doctor.watch.Watch.note_doubles", fail)
    (finding,) = examine(Patient(Healthy().eval(), rows_spec, DYNAMO, NOWHERE))
    assert finding.level == "warning"
    assert "could not be examined: RuntimeError: no watch" in finding.what


def test_weights_are_not_copied(rows_spec, monkeypatch):
    network = Moving().eval()
    network.big = nn.Parameter(torch.zeros(64, 8))
    copied, clone = [], torch.Tensor.clone

    def counted(tensor):
        copied.append(tensor.numel())
        return clone(tensor)

    monkeypatch.setattr(torch.Tensor, "clone", counted)
    found(network, rows_spec)
    assert copied == [16, 8, 8]  # the example input, and the two running statistics that move


def test_a_line_of_the_spec_is_found_or_is_the_first(tmp_path):
    (tmp_path / "spec.yaml").write_text("task: tensor\ntransformers: BertModel\n")
    assert build_line(tmp_path) == f"{tmp_path.as_posix()}/spec.yaml:2"
    assert spec_line(tmp_path, "gone") == f"{tmp_path.as_posix()}/spec.yaml:1"
