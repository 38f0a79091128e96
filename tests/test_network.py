"""Loading a model's network by name and running it on arrays."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from onnx_release.errors import NetworkError, SpecError
from onnx_release.network import check_outputs, load_network, refuse_training, run_network

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
    """Write models/tiny/network.py to an empty folder that is the working directory and the place to import from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "models"]:
        monkeypatch.delitem(sys.modules, name)

    def write(text: str) -> None:
        (tmp_path / "models/tiny").mkdir(parents=True)
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


@pytest.mark.parametrize(
    "form",
    [lambda *values: values, lambda *values: list(values), lambda first, second: {"one": first, "two": second}],
    ids=["a tuple", "a list", "a dict"],
)
def test_outputs_get_the_declared_names_in_their_order(two_by_two, form):
    outputs = run_network(Subtract(form), two_by_two, {"x": X, "y": Y})
    assert {name: array.tolist() for name, array in outputs.items()} == {
        "difference": [[-9, -28]],
        "total": [[11, 32]],
    }


def test_a_single_output_may_be_a_bare_tensor(make_spec):
    spec = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2]}, batch=(1, 4, 2))
    assert run_network(nn.ReLU(), spec, {"x": -X})["y"].tolist() == [[0, 0]]


def test_floats_are_cast_and_integers_are_not(two_by_two):
    seen = []

    class Watching(nn.Module):
        def forward(self, first, second):
            seen.extend([first.dtype, second.dtype])
            return first, first

    outputs = run_network(Watching(), two_by_two, {"x": X, "y": Y.astype(np.int64)}, torch.float64)
    assert seen == [torch.float64, torch.int64]
    assert outputs["total"].dtype == np.float64


def test_another_number_of_outputs_than_declared_is_refused(two_by_two):
    network = Subtract(lambda difference, total: difference)
    with pytest.raises(NetworkError, match=r"returns 1 outputs, spec\.yaml declares 2"):
        run_network(network, two_by_two, {"x": X, "y": Y})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_is_named(two_by_two, bad):
    network = Subtract(lambda difference, total: (difference, torch.where(total > 20, bad, total)))
    with pytest.raises(NetworkError, match="output total holds 1 NaN or infinite of 2 values in float32"):
        run_network(network, two_by_two, {"x": X, "y": Y})


def test_outputs_that_fit_the_spec_pass(two_by_two):
    check_outputs(two_by_two, {"x": X, "y": Y}, {"difference": X, "total": Y})


@pytest.mark.parametrize(
    ("total", "says"),
    [
        (np.ones((1, 3), np.float32), r"total has the shape \[1, 3\]"),
        (np.ones((2, 2), np.float32), r"total has the shape \[2, 2\].*batch is 1"),
        (np.ones((1, 2, 1), np.float32), r"total has the shape \[1, 2, 1\]"),
        (np.ones((1, 2), np.int64), "total is int64 where float32 is declared"),
    ],
    ids=["a size", "a dimension", "the axes", "the dtype"],
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


def test_a_missing_network_file_is_named(write_model):
    with pytest.raises(SpecError, match=r"models/tiny/network\.py is not there: it must define build"):
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


def test_a_network_that_fails_at_a_declared_size_or_in_float64_says_where(make_spec):
    class Float32Only(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.ones(2, 2)

    spec = make_spec({"x": ["batch", 2]}, {"y": ["batch", 2]}, batch=(1, 4, 2))
    inputs = {"x": np.ones((3, 2), np.float32)}
    assert run_network(Float32Only().eval(), spec, inputs)["y"].tolist() == [[2.0, 2.0]] * 3
    with pytest.raises(NetworkError, match=r"fails in float64 on x \[3, 2\]: .*\nIt must run"):
        run_network(Float32Only().eval(), spec, inputs, torch.float64)
