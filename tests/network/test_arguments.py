"""Which input goes to which parameter of forward()."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from onnx_release.core.errors import NetworkError
from onnx_release.core.params import Export
from onnx_release.export.export import export_network
from onnx_release.network.arguments import take_by_name
from onnx_release.network.half_precision import bring_to_float32
from onnx_release.runtime.session import open_session, run_session

ONE, TWO, THREE = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0])


class Digits(nn.Module):
    """100 x + 10 memory + mask: each digit of the result is an input."""

    def forward(self, x, memory=None, mask=None):
        return 100 * x + (0 if memory is None else 10 * memory) + (0 if mask is None else mask)


class Keywords(nn.Module):
    def forward(self, *, first, second):
        return 10 * first + second


class Nested(nn.Module):
    """An LSTM's states as a tuple, a dict, and a parameter that goes by position only."""

    def forward(self, x, /, state, batch):
        return 1000 * x + 100 * state[0] + 10 * state[1][0] + batch["mask"]


class AnyName(nn.Module):
    def forward(self, x, **others):
        return 10 * x + others["extra"]


def taken(network, *names):
    take_by_name(network, names)
    return network


def test_an_input_never_becomes_another_parameter_than_its_name_says():
    assert taken(Digits(), "x", "mask")(ONE, TWO).tolist() == [102]
    assert taken(Digits(), "mask", "x")(ONE, TWO).tolist() == [201]
    assert Digits()(ONE, TWO).tolist() == [120]  # by position


def test_positions_that_are_right_leave_the_network_as_it_is():
    for names in (["x", "memory"], ["image", "other"], ["x", "other", "mask"]):
        assert type(taken(Digits(), *names)) is Digits


def test_keyword_only_parameters_are_given_by_name():
    assert taken(Keywords(), "second", "first")(ONE, TWO).tolist() == [21]


def test_other_names_go_into_keyword_arguments():
    assert taken(AnyName(), "extra", "x")(ONE, TWO).tolist() == [21]


def test_a_part_of_a_keyword_argument_is_given_by_path():
    class Extra(AnyName):
        def forward(self, x, **others):
            return super().forward(x, extra=others["extras"][1]["y"])

    assert taken(Extra(), "extras.0.y", "x", "extras.1.y")(THREE, ONE, TWO).tolist() == [12]


def test_parts_of_tuples_and_dicts_are_given_by_path():
    network = taken(Nested(), "batch.mask", "state.1.0", "state.0", "x")
    assert network(torch.tensor([4.0]), THREE, TWO, ONE).tolist() == [1234]


def test_a_forward_that_was_set_on_the_network_itself_is_called():
    network: Any = Digits()
    network.forward = lambda x, mask=None, memory=None: 500 + 10 * x + memory
    assert taken(network, "memory", "x")(ONE, TWO).tolist() == [521]


def test_a_copy_runs_with_its_own_weights_and_modules_keep_their_names():
    network = Keywords()
    network.inner = nn.Linear(1, 1)
    other = copy.deepcopy(taken(network, "second", "first"))
    assert [name for name, _ in other.named_modules()] == ["", "inner"] and type(other).__name__ == "Keywords"
    assert isinstance(other, Keywords) and other(ONE, TWO).tolist() == [21]


def test_a_network_in_half_precision_takes_its_inputs_by_name_too(make_spec):
    class Half(Keywords):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, dtype=torch.float16))

        def forward(self, *, first, second):
            return super().forward(first=first * self.weight, second=second)

    network = taken(Half(), "second", "first")
    bring_to_float32(network, make_spec({"second": [1], "first": [1]}, {"y": [1]}))
    program = torch.export.export(network, (ONE.half(), TWO.half()))
    assert program.module()(ONE.half(), TWO.half()).tolist() == [21]


@pytest.mark.parametrize(
    ("network", "names", "message"),
    [
        (Keywords(), ["x"], r"declares the input x, and forward\(\) of Keywords has no such parameter.*second\.mask"),
        (Digits(), ["x", "image", "memory"], r"the input image, .*forward\(x, memory=None, mask=None\)\. Name every"),
        (Digits(), ["a", "b", "c", "d"], r"the inputs a, b, c, d, "),
        (nn.LSTM(2, 2), ["input", "h", "c"], r"the inputs h, c, .* by its path, as in hx\.0"),
    ],
)
def test_names_that_leave_something_to_guess_are_refused(network, names, message):
    with pytest.raises(NetworkError, match=message):
        take_by_name(network, names)


class Adds(nn.Module):
    def forward(self, maps):
        maps = maps + [10 * maps[-1]]  # noqa: RUF005  # the other way takes a tuple too
        return maps[0] + maps[1] + maps[2]


class Appends(nn.Module):
    def forward(self, maps):
        maps.append(10 * maps[-1])
        return maps[0] + maps[1] + maps[2]


@pytest.mark.parametrize("network", [Adds(), Appends()], ids=["adds", "appends"])
def test_a_network_that_needs_a_list_gets_one(network):
    network = taken(network.eval(), "maps.0", "maps.1")
    assert torch.export.export(network, (ONE, TWO)).module()(ONE, TWO).tolist() == [23]
    assert network(ONE, TWO).tolist() == [23]


def test_the_error_of_a_network_that_takes_neither_tuple_nor_list_is_its_own():
    with pytest.raises(TypeError, match="tuple indices must be integers"):
        taken(Nested(), "x", "state.0", "state.1", "batch.0")(ONE, ONE, ONE, ONE)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_the_file_has_the_declared_inputs(tmp_path, make_spec, exporter):
    shape = ["batch", 1]
    names = ["batch.mask", "state.1.0", "state.0", "x"]
    spec = make_spec(dict.fromkeys(names, shape), {"y": shape}, batch=(1, 4, 2))
    export_network(taken(Nested(), *names).eval(), spec, Export(exporter=exporter, opset=18), tmp_path / "export")
    inputs = {name: torch.full((3, 1), float(4 - i)).numpy() for i, name in enumerate(names)}
    assert run_session(open_session(tmp_path / "export/model.onnx"), inputs)["y"].tolist() == [[1234]] * 3


def test_torch_export_captures_it_in_strict_mode_too():
    network = taken(Nested(), "x", "state.0", "state.1.0", "batch.mask")
    program = torch.export.export(network, (ONE, TWO, THREE, ONE), strict=True)
    assert program.module()(ONE, ONE, ONE, ONE).tolist() == [1111]
