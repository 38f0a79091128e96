"""Ranges that the answers choose, on a small network."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_release import refine
from onnx_release.calibrate import find_ranges
from onnx_release.judge import Judge, signal
from onnx_release.layers import initializers
from onnx_release.params import Calibrate
from onnx_release.qdq import insert_qdq, quantized_values
from onnx_release.quantized_graph import QuantizedGraph
from onnx_release.refine import refine_ranges, with_scaled_range
from onnx_release.targets import TARGETS
from onnx_release.work import Work, multiply_adds
from tests.residual import SPEC, Data, save_inputs, save_network

PARAMS = Calibrate(method="minmax", percentile=99.99, bins=2048, chunk=8)


@pytest.fixture
def case(save_graph, tmp_path):
    """The float network, its ranges, and a judge."""
    source = save_network(save_graph)
    judge = Judge(source, SPEC, Data(), save_inputs(tmp_path))
    model = onnx.load(source)
    return model, find_ranges(model, judge.samples, PARAMS)[0], judge


def work_on(model, judge, minutes=1.0):
    return Work(minutes, multiply_adds(model, judge.samples))


def test_a_wider_range_keeps_zero_points_and_biases(case):
    model, ranges, _ = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    wider, changed = with_scaled_range(quantized, "r1", 2.0)
    graphs = QuantizedGraph(quantized), QuantizedGraph(wider)
    before, after = (graph.bias("depthwise") for graph in graphs)
    np.testing.assert_allclose(after, before, atol=1e-3)
    assert graphs[1].array("r1_scale") == 2 * graphs[0].array("r1_scale")
    arrays = [
        {name: numpy_helper.to_array(tensor) for name, tensor in initializers(graph).items()}
        for graph in (quantized, wider)
    ]
    assert changed == {name for name in arrays[0] if not np.array_equal(arrays[0][name], arrays[1][name])}


def test_the_range_of_a_layer_in_float_is_scaled_where_it_is_dequantized_too(case):
    model, ranges, judge = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], ["inner"])
    wider, changed = with_scaled_range(quantized, "c3", 1.25)
    assert "inner_scales" in changed
    figures = [judge.figures(graph, range(8))["sqnr_db"] for graph in (quantized, wider)]
    assert figures[1] == pytest.approx(figures[0], abs=3)


def test_a_range_that_is_far_too_wide_is_mended(case):
    model, ranges, judge = case
    wrong = ranges | {"x": (20 * ranges["x"][0], 20 * ranges["x"][1])}
    quantized = insert_qdq(model, wrong, TARGETS["vnni"], [])
    factors = refine_ranges(quantized, judge, range(len(judge.samples)), work_on(model, judge))
    assert factors["x"] < 0.3
    mended = insert_qdq(model, {**wrong, **scaled(wrong, factors)}, TARGETS["vnni"], [])
    before, after = (signal(judge.figures(graph, range(24))) for graph in (quantized, mended))
    assert after > before + 5


def scaled(ranges, factors):
    return {name: (ranges[name][0] * factor, ranges[name][1] * factor) for name, factor in factors.items()}


def test_without_work_nothing_is_tried(case):
    model, ranges, judge = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    work = work_on(model, judge)
    assert refine_ranges(quantized, judge, range(4), work, reserve=work.left) == {}


@pytest.mark.parametrize("float_nodes", [[], ["inner"]])
def test_what_a_trial_computes_is_what_the_whole_graph_gives(case, monkeypatch, float_nodes):
    """Every trial's answers, from kept values, against those of the whole trial graph."""
    model, ranges, judge = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], float_nodes)
    graphs, answers = [], []

    def remembering(*arguments):
        found = with_scaled_range(*arguments)
        graphs.append(found[0])
        return found

    class Listening(Judge):
        def compare(self, found, indices):
            answers.append(found)
            return super().compare(found, indices)

    judge.__class__ = Listening
    monkeypatch.setattr(refine, "with_scaled_range", remembering)
    refine_ranges(quantized, judge, range(4), work_on(model, judge))
    assert len(graphs) > 3 * len(quantized_values(quantized))
    for graph, found in zip(graphs, answers[1:], strict=True):  # the first are those of the graph as it came
        for one, other in zip(judge.outputs(graph, range(4)), found, strict=True):
            np.testing.assert_array_equal(one["y"], other["y"])


def test_a_trial_costs_what_depends_on_its_range(case):
    model, ranges, judge = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    paid = []

    class Watched(Work):
        def run(self, samples, layers=None):
            paid.append(layers)
            super().run(samples, layers)

    refine_ranges(quantized, judge, range(4), Watched(1.0, multiply_adds(model, judge.samples)))
    layers = {"first", "depthwise", "project", "inner", "expand", "classify"}
    assert paid[0] is None  # the whole graph, once, for the values that are kept
    assert paid[1] & layers == {"classify"}
    assert paid[-1] & layers == layers
