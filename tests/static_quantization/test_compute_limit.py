"""ComputeLimit is multiply-adds, worked out by hand."""

import onnx
import pytest
from onnx import helper

from onnx_release.static_quantization.compute_limit import (
    FITTING,
    MACS_PER_SECOND,
    OPENING,
    OVERHEAD,
    ComputeLimit,
    multiply_adds,
)
from tests.residual import save_inputs, save_network

MACS = {"one": 3e6, "two": 5e6}


def test_the_multiply_adds_of_each_layer_are_outputs_times_weights_of_each(save_graph, tmp_path):
    found = multiply_adds(onnx.load(save_network(save_graph)), save_inputs(tmp_path, 1))
    positions = 8 * 8
    assert found == {
        "first": positions * 8 * 3 * 9,
        "depthwise": positions * 8 * 9,
        "project": positions * 4 * 8,
        "inner": positions * 4 * 4,
        "expand": positions * 8 * 4,
        "classify": 8 * 5,
    }


def test_a_network_without_weights_has_no_multiply_adds(save_graph, tmp_path):
    source = save_graph([helper.make_node("Relu", ["x"], ["y"])], [("x", ["n", 3, 8, 8])], [("y", ["n", 3, 8, 8])])
    assert multiply_adds(onnx.load(source), save_inputs(tmp_path, 1)) == {}


def test_minutes_become_multiply_adds_and_runs_use_them_up():
    work = ComputeLimit(2.0, MACS)
    assert work.left == 120 * MACS_PER_SECOND
    work.run(7)
    assert work.left == pytest.approx(120 * MACS_PER_SECOND - (8e6 + OVERHEAD) * (7 + OPENING))


def test_what_is_held_back_is_not_left():
    work = ComputeLimit(2.0, MACS)
    work.reserved = 50 * MACS_PER_SECOND
    work.run(7)
    assert work.left == pytest.approx(70 * MACS_PER_SECOND - (8e6 + OVERHEAD) * (7 + OPENING))


def test_a_part_of_the_graph_costs_its_own_layers():
    work = ComputeLimit(1.0, MACS)
    work.run(1, {"two", "no layer"})
    assert work.left == pytest.approx(60 * MACS_PER_SECOND - (5e6 + OVERHEAD) * (1 + OPENING))


def test_a_fit_costs_several_runs_of_every_sample():
    work = ComputeLimit(1.0, MACS)
    work.fit(3)
    assert work.left == pytest.approx(60 * MACS_PER_SECOND - 3 * FITTING * (8e6 + OVERHEAD))
