"""Ranges that the answers choose, on a small network."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_release.core.params import Calibrate
from onnx_release.graph.layers import initializers
from onnx_release.graph.targets import TARGETS
from onnx_release.measure.closeness import Closeness
from onnx_release.reduce.calibrate import find_ranges
from onnx_release.static_quantization import refine as refine_module
from onnx_release.static_quantization.compute_limit import ComputeLimit, measure_work
from onnx_release.static_quantization.qdq import insert_qdq, quantized_values
from onnx_release.static_quantization.quantized_graph import QuantizedGraph
from onnx_release.static_quantization.refine import (
    COARSE,
    Sweep,
    factor_bounds,
    one_per_scale,
    refine_ranges,
    with_scaled_range,
)
from onnx_release.static_quantization.scoring import Scorer
from onnx_release.static_quantization.search import scale_ranges
from tests.residual import CLASSES, SHAPE, SPEC, Data, save_inputs, save_network

PARAMS = Calibrate(method="minmax", percentile=99.99, bins=2048, chunk=8)


@pytest.fixture
def case(save_graph, tmp_path):
    """The float network, its ranges, and a scorer."""
    source = save_network(save_graph)
    scorer = Scorer(source, SPEC, Data(), save_inputs(tmp_path))
    model = onnx.load(source)
    return model, find_ranges(model, scorer.samples, PARAMS)[0], scorer


def made_values(model):
    return [name for node in model.graph.node for name in node.output]


def work_on(model, scorer, minutes=1.0):
    return ComputeLimit(minutes, measure_work(model, made_values(model), scorer.samples).macs)


def refine(model, quantized, ranges, scorer, samples=24):
    work = work_on(model, scorer)
    return refine_ranges(quantized, factor_bounds(model, ranges), Sweep(COARSE, range(samples)), scorer, work)


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
    model, ranges, scorer = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], ["inner"])
    wider, changed = with_scaled_range(quantized, "c3", 1.25)
    assert "inner_scales" in changed
    figures = [scorer.score(graph, range(8)).sqnr_db for graph in (quantized, wider)]
    assert figures[1] == pytest.approx(figures[0], abs=3)


def test_a_range_that_is_far_too_wide_is_fixed(case):
    model, ranges, scorer = case
    wrong = ranges | {"x": (20 * ranges["x"][0], 20 * ranges["x"][1])}
    quantized = insert_qdq(model, wrong, TARGETS["avx2"], [])
    factors = refine(model, quantized, wrong, scorer)
    assert factors["x"] < 0.3
    fixed = insert_qdq(model, scale_ranges(wrong, factors), TARGETS["avx2"], [])
    before, after = (scorer.score(graph, range(24)).signal for graph in (quantized, fixed))
    assert after > before + 5


def test_without_work_nothing_is_tried(case):
    model, ranges, scorer = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    work = work_on(model, scorer)
    work.reserved = work.left
    assert refine_ranges(quantized, factor_bounds(model, ranges), Sweep(COARSE, range(4)), scorer, work) == {}


@pytest.mark.parametrize("float_nodes", [[], ["inner"]])
def test_what_a_trial_computes_is_what_the_whole_graph_gives(case, monkeypatch, float_nodes):
    """Every trial's answers, from kept values, against those of the whole trial graph."""
    model, ranges, scorer = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], float_nodes)
    graphs, answers = [], []

    def remembering(*arguments):
        found = with_scaled_range(*arguments)
        graphs.append(found[0])
        return found

    class Listening(Scorer):
        def score_outputs(self, found, indices):
            answers.append(found)
            return super().score_outputs(found, indices)

    scorer.__class__ = Listening
    monkeypatch.setattr(refine_module, "with_scaled_range", remembering)
    refine(model, quantized, ranges, scorer, 4)
    assert len(graphs) >= 2 * len(quantized_values(quantized))
    for graph, found in zip(graphs, answers[1:], strict=True):  # the first are those of the graph as it came
        for one, other in zip(scorer.outputs(graph, range(4)), found, strict=True):
            np.testing.assert_array_equal(one["y"], other["y"])


def test_a_trial_costs_what_depends_on_its_range(case):
    model, ranges, scorer = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    paid = []

    class Watched(ComputeLimit):
        def run(self, samples, layers=None):
            paid.append(layers)
            super().run(samples, layers)

    work = Watched(1.0, measure_work(model, made_values(model), scorer.samples).macs)
    refine_ranges(quantized, factor_bounds(model, ranges), Sweep(COARSE, range(4)), scorer, work)
    layers = {"first", "depthwise", "project", "inner", "expand", "classify"}
    assert paid[0] is None  # the whole graph, once, for the values that are kept
    assert paid[1] & layers == {"classify"}
    assert paid[-1] & layers == layers


def pooled(save_graph):
    """Conv, ReLU, MaxPool, Flatten, Gemm, of whose last three values two have the scale of the first."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="gemm"),
    ]
    weights = {"w": random.normal(size=(4, 3, 3, 3)), "v": random.normal(size=(36, CLASSES)) / 6}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    return save_graph(nodes, [("x", ["batch", *SHAPE])], [("y", ["batch", CLASSES])], weights)


def test_values_that_share_a_scale_are_one_range(save_graph, tmp_path):
    source = pooled(save_graph)
    scorer, model = Scorer(source, SPEC, Data(), save_inputs(tmp_path)), onnx.load(source)
    right = find_ranges(model, scorer.samples, PARAMS)[0]
    wrong = right | {name: (0.0, 20 * right[name][1]) for name in "rpf"}
    quantized = insert_qdq(model, wrong, TARGETS["vnni"], [])
    assert one_per_scale(quantized) == ["x", "r"]
    factors = refine(model, quantized, wrong, scorer)
    fixed = insert_qdq(model, scale_ranges(wrong, factors), TARGETS["vnni"], [])
    ours, best = (
        scorer.score(graph, range(24)).signal for graph in (fixed, insert_qdq(model, right, TARGETS["vnni"], []))
    )
    assert factors["r"] < 0.1 and ours > best - 3


def test_a_range_is_not_widened_past_the_bound_of_its_clip(case):
    model, ranges, scorer = case
    some = {"x": (-1.0, 1.0), "r1": (0.0, 5.0), "r2": (0.0, 6.0)}
    assert factor_bounds(model, some) == {"x": (0, np.inf), "r1": (0, 6 / 5), "r2": (0, 1.0)}
    narrow = ranges | {"r1": (0.0, 0.25 * ranges["r1"][1]), "r2": (0.0, 0.25 * ranges["r2"][1])}
    found = scale_ranges(narrow, refine(model, insert_qdq(model, narrow, TARGETS["avx2"], []), narrow, scorer))
    assert narrow["r1"][1] < found["r1"][1] <= 6 and narrow["r2"][1] < found["r2"][1] <= 6


def test_answers_without_any_error_are_no_gain(case, monkeypatch):
    model, ranges, scorer = case
    monkeypatch.setattr(scorer, "score", lambda *_: Closeness(None, 0.0, None))
    assert refine(model, insert_qdq(model, ranges, TARGETS["vnni"], []), ranges, scorer, 2) == {}
