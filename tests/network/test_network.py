"""Loading a model's network by name and running it on arrays."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from onnx_release.core.errors import CheckpointError, NetworkError, SpecError
from onnx_release.core.params import Export
from onnx_release.core.spec import load_spec
from onnx_release.export.export import export_network
from onnx_release.network.network import check_outputs, load_network, refuse_training, run_network
from onnx_release.runtime.session import open_session, run_session

SPEC = """
task: tensor
sources: []
variants: []
dimensions: {batch: {min: 1, max: 4, example: 2}}
inputs: [{name: x, dtype: float32, shape: [batch, 2]}]
outputs:
  - {name: first, dtype: float32, shape: [batch, 2]}
  - {name: second, dtype: float32, shape: [batch, 2]}
"""
X, Y = np.array([[1, 2]], np.float32), np.array([[10, 30]], np.float32)


class Subtract(nn.Module):
    """The result in the form that `form` gives it."""

    def __init__(self, form=lambda difference, total: (difference, total)):
        super().__init__()
        self.form = form

    def forward(self, first, second):
        return self.form(first - second, first + second)


@pytest.fixture
def two_by_two(make_spec):
    shape = ["batch", 2]
    return make_spec({"x": shape, "y": shape}, {"difference": shape, "total": shape}, batch=(1, 4, 2))


@pytest.fixture
def write_model(tmp_path, monkeypatch):
    """Write models/tiny to an empty folder that is the working directory and the place to import from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "models"]:
        monkeypatch.delitem(sys.modules, name)

    def write(text: str | None, spec: str = SPEC) -> None:
        (tmp_path / "models/tiny").mkdir(parents=True)
        (tmp_path / "models/tiny/spec.yaml").write_text(spec)
        if text is not None:
            (tmp_path / "models/tiny/network.py").write_text(text)

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "models"]:
        del sys.modules[name]


def test_a_network_in_eval_mode_passes():
    refuse_training(nn.Sequential(nn.Dropout()).eval())


def test_modules_in_training_mode_are_named():
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()
    network[1].train()
    with pytest.raises(NetworkError, match=r"^in training mode: 1 \(Dropout\)\. End build\(\)"):
        refuse_training(network)


def test_of_many_modules_in_training_mode_three_are_named_and_the_others_counted():
    network = nn.Sequential(*[nn.Dropout() for _ in range(4)])
    with pytest.raises(NetworkError, match=r"the network \(Sequential\), 0 \(Dropout\), 1 \(Dropout\) and 2 more\. "):
        refuse_training(network)


def test_inputs_go_in_by_the_position_in_the_spec(two_by_two):
    outputs = run_network(Subtract(), two_by_two, {"y": Y, "x": X})
    assert outputs["difference"].tolist() == [[-9, -28]]
    assert outputs["total"].tolist() == [[11, 32]]


@pytest.mark.parametrize("form", [lambda *values: values, lambda *values: list(values)], ids=["a tuple", "a list"])
def test_outputs_get_the_declared_names_in_their_order(two_by_two, form):
    outputs = run_network(Subtract(form), two_by_two, {"x": X, "y": Y})
    assert outputs["difference"].tolist() == [[-9, -28]]
    assert outputs["total"].tolist() == [[11, 32]]


def test_outputs_of_a_dict_are_taken_by_their_names_whatever_their_order(two_by_two):
    network = Subtract(lambda difference, total: {"extra": total, "total": total, "difference": difference})
    outputs = run_network(network, two_by_two, {"x": X, "y": Y})
    assert outputs["difference"].tolist() == [[-9, -28]]
    assert outputs["total"].tolist() == [[11, 32]]


def test_a_dict_without_a_declared_output_is_refused_with_those_that_it_has(two_by_two):
    network = Subtract(lambda difference, total: {"difference": difference, "sum": total})
    with pytest.raises(
        NetworkError, match=r"has no output total, which spec\.yaml declares; it gives difference, sum$"
    ):
        run_network(network, two_by_two, {"x": X, "y": Y})


def test_a_single_output_may_be_a_bare_tensor(make_spec):
    spec = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2]}, batch=(1, 4, 2))
    assert run_network(nn.ReLU(), spec, {"x": -X})["y"].tolist() == [[0, 0]]


def test_an_output_may_be_a_marked_view_or_a_weight(two_by_two):
    class Marked(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 2))

        def forward(self, first, second):
            return torch.complex(first, second).conj().imag, self.weight

    outputs = run_network(Marked(), two_by_two, {"x": X, "y": Y})
    assert outputs["difference"].tolist() == [[-10, -30]]
    assert outputs["total"].tolist() == [[1, 1]]


def test_floats_are_cast_and_integers_are_not(two_by_two):
    seen = []

    class Watching(nn.Module):
        def forward(self, first, second):
            seen.extend([first.dtype, second.dtype])
            return first, first

    outputs = run_network(Watching(), two_by_two, {"x": X, "y": Y.astype(np.int64)}, torch.float64)
    assert seen == [torch.float64, torch.int64]
    assert outputs["total"].dtype == np.float64


def test_half_precision_goes_in_as_declared_and_in_float64_as_float64(make_spec):
    spec = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2]}, batch=(1, 4, 2))
    seen = []
    network = nn.Identity()
    network.register_forward_hook(lambda _module, inputs, _result: seen.append(inputs[0].dtype))
    for dtype in (torch.float32, torch.float64):
        run_network(network, spec, {"x": X.astype(np.float16)}, dtype)
    assert seen == [torch.float16, torch.float64]


def test_a_dict_that_is_given_as_a_tensor_says_how_its_parts_are_named(make_spec):
    class Batched(nn.Module):
        def forward(self, batch):
            return batch.image["x"]

    spec = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2]}, batch=(1, 4, 2))
    with pytest.raises(NetworkError, match=r"AttributeError: .*\n.*named by its path: batch\.image"):
        run_network(Batched(), spec, {"x": X})


def test_another_number_of_outputs_than_declared_is_refused(two_by_two):
    network = Subtract(lambda difference, total: difference)
    with pytest.raises(NetworkError, match=r"returns 1 output, spec\.yaml declares 2"):
        run_network(network, two_by_two, {"x": X, "y": Y})


def test_an_output_with_nan_is_named_and_infinity_is_an_answer(two_by_two):
    def network(bad):
        return Subtract(lambda difference, total: (difference, torch.where(total > 20, bad, total)))

    with pytest.raises(NetworkError, match="1 of the 2 values of the output total are NaN in float32"):
        run_network(network(math.nan), two_by_two, {"x": X, "y": Y})
    found = run_network(network(-math.inf), two_by_two, {"x": X, "y": Y})
    assert (found["total"] == -np.inf).sum() == 1


def test_outputs_that_fit_the_spec_pass(two_by_two):
    check_outputs(two_by_two, {"x": X, "y": Y}, {"difference": X, "total": Y})


@pytest.mark.parametrize(
    ("total", "says"),
    [
        (np.ones((1, 3), np.float32), r"total has the shape \[1, 3\]"),
        (np.ones((2, 2), np.float32), r"total has the shape \[2, 2\].*batch is 1"),
        (np.ones((1, 2, 1), np.float32), r"total has the shape \[1, 2, 1\]"),
        (np.ones((1, 2), np.int64), "total is int64 where float32 is declared$"),
        (np.ones((1, 2), np.float64), r"total is float64 .*: let forward\(\) return it in float32, with \.float\(\)$"),
    ],
    ids=["a size", "a dimension", "the axes", "the dtype", "float64"],
)
def test_an_output_that_contradicts_the_spec_is_named(two_by_two, total, says):
    with pytest.raises(NetworkError, match=f"the network contradicts spec.yaml: {says}"):
        check_outputs(two_by_two, {"x": X, "y": Y}, {"difference": X, "total": total})


def test_build_gets_the_folder_with_the_sources(write_model):
    write_model(
        "import torch\n\n\n"
        "def build(raw):\n"
        "    network = torch.nn.Identity().eval()\n"
        "    network.raw = raw\n"
        "    return network\n"
    )
    assert load_network("tiny", Path("data/raw/tiny")).raw == Path("data/raw/tiny")


def test_a_missing_network_file_is_named_with_both_ways_to_give_one(write_model):
    write_model(None)
    ways = r"network\.py is not there, .* write network\.py with build\(\), or name .*`transformers`"
    with pytest.raises(SpecError, match=ways):
        load_network("tiny", Path("raw"))


def test_a_network_file_without_build_is_named(write_model):
    write_model("def make(raw):\n    return None\n")
    with pytest.raises(SpecError, match=r"models/tiny/network\.py does not define build\(\)"):
        load_network("tiny", Path("raw"))


def test_a_build_that_returns_no_network_is_named(write_model):
    write_model("def build(raw):\n    return {'weight': 1}\n")
    with pytest.raises(NetworkError, match=r"models/tiny/network\.py returns dict, not a torch module"):
        load_network("tiny", Path("raw"))


def test_a_build_that_forgets_eval_is_refused(write_model):
    write_model("import torch\n\n\ndef build(raw):\n    return torch.nn.Linear(2, 2)\n")
    with pytest.raises(NetworkError, match=r"in training mode: the network \(Linear\)"):
        load_network("tiny", Path("raw"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import torch\n\n\ndef build(raw:\n", r"network\.py:4: SyntaxError: "),
        (
            "import torch\nimport no_such_package\n",
            r"network\.py:2: ModuleNotFoundError: No module named 'no_such_pack",
        ),
        ("def scale(x):\n    return 1 / x\n\n\nscale(0)\n", r"network\.py:2: ZeroDivisionError: division by zero"),
        (
            "from models.tiny.blocks import Block\n",
            r"models.tiny: ModuleNotFoundError|network\.py:1: ModuleNotFoundError",
        ),
    ],
    ids=["a syntax error", "a missing package", "an exception", "a missing file of the model"],
)
def test_a_network_file_that_cannot_be_imported_is_named_with_its_line(write_model, text, says):
    write_model(text)
    with pytest.raises(SpecError, match=rf"models/tiny/network\.py cannot be imported: .*({says})"):
        load_network("tiny", Path("raw"))


def test_the_line_of_a_failure_is_the_model_s_own_and_not_that_of_the_library(write_model):
    write_model("import torch\n\n\ndef build(raw):\n    return torch.nn.Linear(2, -1)\n")
    with pytest.raises(NetworkError, match=r"^build\(\) in .*fails at models/tiny/network\.py:5: RuntimeError: "):
        load_network("tiny", Path("raw"))


def test_an_error_that_already_says_what_to_do_is_passed_on(write_model):
    write_model(
        "from onnx_release.core.errors import CheckpointError\n\n\n"
        "def build(raw):\n    raise CheckpointError('fix it')\n"
    )
    with pytest.raises(CheckpointError, match=r"^fix it$"):
        load_network("tiny", Path("raw"))


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_network_that_returns_a_dict_is_exported_by_its_names(write_model, tmp_path, exporter):
    write_model(
        "import torch\n\n\n"
        "class Two(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return {'second': x + 2, 'first': x + 1}\n\n\n"
        "def build(raw):\n    return Two().eval()\n"
    )
    network = load_network("tiny", Path("raw"))
    export_network(network, load_spec("tiny"), Export(exporter=exporter, opset=18), tmp_path / "export")
    outputs = run_session(open_session(tmp_path / "export/model.onnx"), {"x": X})
    assert {name: array.tolist() for name, array in outputs.items()} == {"first": [[2, 3]], "second": [[3, 4]]}


def test_a_build_may_return_a_network_of_torchscript(write_model, tmp_path):
    write_model(
        "import torch\n\n\n"
        "class Two(torch.nn.Module):\n"
        "    def forward(self, y, x):\n"
        "        return {'second': x + y, 'first': x - y}\n\n\n"
        "def build(raw):\n    return torch.jit.script(Two().eval())\n",
        SPEC.replace("inputs: [", "inputs: [{name: x, dtype: float32, shape: [batch, 2]}, ").replace(
            "name: x", "name: y", 1
        ),
    )
    network = load_network("tiny", Path("raw"))
    export_network(network, load_spec("tiny"), Export(exporter="torchscript", opset=18), tmp_path / "export")
    outputs = run_session(open_session(tmp_path / "export/model.onnx"), {"x": X, "y": Y})
    assert {name: array.tolist() for name, array in outputs.items()} == {"first": [[-9, -28]], "second": [[11, 32]]}


def test_a_sparse_buffer_is_refused_by_name_with_a_dense_fix(write_model):
    write_model(
        "import torch\n\n\n"
        "def build(raw):\n"
        "    network = torch.nn.Identity().eval()\n"
        "    network.register_buffer('edges', torch.eye(2).to_sparse())\n"
        "    return network\n"
    )
    with pytest.raises(NetworkError, match=r"^not dense: edges \(torch\.sparse_coo\)\. .*put \.to_dense\(\)"):
        load_network("tiny", Path("raw"))


WRAPPED = """
import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.ReLU()

    def forward(self, *, x):
        return self.block(x), x


def build(raw):
    network = Tiny().eval()
    {line}
    return network
"""


@pytest.mark.parametrize(
    "line",
    [
        "network = torch.compile(network)",
        "network = nn.DataParallel(torch.compile(network)).eval()",
        "network.block = torch.compile(network.block)",
        "network.compile()",
    ],
)
def test_a_network_is_taken_out_of_what_training_wraps_around_it(write_model, line):
    write_model(WRAPPED.format(line=line))
    network = load_network("tiny", Path("raw"))
    assert [type(module).__name__ for module in network.modules()] == ["Tiny", "ReLU"]
    program = torch.export.export(network, (torch.from_numpy(X - 2),))
    assert program.module()(torch.from_numpy(X - 2))[0].tolist() == [[0, 0]]


def test_a_network_file_and_a_class_of_transformers_are_one_too_many(write_model):
    write_model("def build(raw):\n    return None\n", SPEC + "transformers: AutoModel\n")
    with pytest.raises(SpecError, match=r"has a network\.py and `transformers` in spec\.yaml: remove network\.py if"):
        load_network("tiny", Path("raw"))


def test_a_network_that_fails_at_a_declared_size_or_in_float64_says_where(make_spec):
    class Float32Only(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.ones(2, 2)

    spec = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2]}, batch=(1, 4, 2))
    inputs = {"x": np.ones((3, 2), np.float32)}
    assert run_network(Float32Only().eval(), spec, inputs)["y"].tolist() == [[2.0, 2.0]] * 3
    with pytest.raises(NetworkError, match=r"fails in float64 on x \[3, 2\]: .*\nIt must run"):
        run_network(Float32Only().eval(), spec, inputs, torch.float64)
