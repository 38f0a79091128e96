"""ComputeLimit is multiply-adds, worked out by hand."""

import onnx
import pytest
from onnx import helper

from onnx_release.static_quantization.compute_limit import (
    MACS_PER_SECOND,
    NODE_OPENING,
    OPENING,
    OVERHEAD,
    ComputeLimit,
    measure_work,
)
from tests.residual import save_inputs, save_network

MACS = {"one": 3e6, "two": 5e6}


def test_the_multiply_adds_of_each_layer_are_outputs_times_weights_of_each(save_graph, tmp_path):
    """An operator without weights counts its outputs; the input of a Clip, which has no range, is like its output."""
    model = onnx.load(save_network(save_graph))
    made = [name for node in model.graph.node for name in node.output if name not in ("c1", "c2", "c5")]
    found = measure_work(model, made, save_inputs(tmp_path, 1))
    positions = 8 * 8
    assert found.macs == {
        **{"first": positions * 8 * 3 * 9, "clip1": positions * 8},
        **{"depthwise": positions * 8 * 9, "clip2": positions * 8},
        **{"project": positions * 4 * 8, "inner": positions * 4 * 4, "add": positions * 4},
        **{"expand": positions * 8 * 4, "relu": positions * 8, "mean": 8},
        "classify": 8 * 5,
    }
    assert found.sizes == {
        **{"x": positions * 3, "c1": positions * 8, "r1": positions * 8, "c2": positions * 8, "r2": positions * 8},
        **{"c3": positions * 4, "c4": positions * 4, "a": positions * 4, "c5": positions * 8, "r5": positions * 8},
        **{"m": 8, "y": 5},
    }


def test_a_product_of_two_activations_counts_what_it_sums_up(save_graph, tmp_path):
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="transpose", perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["x", "t"], ["y"], name="product"),
    ]
    model = onnx.load(save_graph(nodes, [("x", ["n", 3, 8, 8])], [("y", ["n", 3, 8, 8])]))
    assert measure_work(model, ["t", "y"], save_inputs(tmp_path, 1)).macs == {
        "transpose": 3 * 8 * 8,
        "product": 3 * 8 * 8 * 8,
    }


def test_minutes_become_multiply_adds_and_runs_use_them_up():
    work = ComputeLimit(2.0, MACS)
    assert work.left == 120 * MACS_PER_SECOND
    work.run(7)
    assert work.left == pytest.approx(120 * MACS_PER_SECOND - (8e6 + OVERHEAD) * (7 + OPENING) - 2 * NODE_OPENING)


def test_what_is_held_back_is_not_left():
    work = ComputeLimit(2.0, MACS)
    work.reserved = 50 * MACS_PER_SECOND
    work.run(7)
    assert work.left == pytest.approx(70 * MACS_PER_SECOND - (8e6 + OVERHEAD) * (7 + OPENING) - 2 * NODE_OPENING)


def test_a_part_of_the_graph_costs_its_own_layers():
    work = ComputeLimit(1.0, MACS)
    work.run(1, {"two", "no layer"})
    assert work.left == pytest.approx(60 * MACS_PER_SECOND - (5e6 + OVERHEAD) * (1 + OPENING) - NODE_OPENING)


def test_a_fit_costs_two_runs_and_the_work_on_its_layers():
    work, other = ComputeLimit(1.0, MACS), ComputeLimit(1.0, MACS)
    work.fit(3, 4e9)
    for _ in range(2):
        other.run(3)
    assert work.left == pytest.approx(other.left - 4e9)
