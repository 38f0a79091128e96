"""Quantization for each target on a small network: types, fitting, search, budget and what runs on integers."""

import math
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from onnx_release.core.errors import GraphError
from onnx_release.core.files import read_json, write_json
from onnx_release.core.spec import Budget
from onnx_release.graph.activations import session_of
from onnx_release.graph.graph import producers
from onnx_release.graph.layers import as_matrix, initializers, kernel_shape, weighted_layers
from onnx_release.graph.targets import TARGETS
from onnx_release.measure.budget import over_budget
from onnx_release.reduce.calibrate import calibrate
from onnx_release.static_quantization import qdq
from onnx_release.static_quantization import search as search_module
from onnx_release.static_quantization.fusion import count_fused
from onnx_release.static_quantization.gptq import PAIR_SUM
from onnx_release.static_quantization.qdq import (
    clip_activations,
    insert_qdq,
    with_float_layers,
)
from onnx_release.static_quantization.quantize_static import quantize_statically
from onnx_release.static_quantization.quantized_graph import QuantizedGraph
from onnx_release.static_quantization.rounding import Fit, copy_fit, fit_weights
from onnx_release.static_quantization.saturation import weight_limits
from onnx_release.static_quantization.scoring import Scorer
from onnx_release.static_quantization.search import MARGIN_DB, Goal
from tests.cpu import answers_show
from tests.residual import CALIBRATE, CLASSES, SHAPE, SPEC, Data, calibrated, save_inputs

BUDGET = Budget(agreement=0.5)

# A network, after which every rounding is seen in the answers.
ONE_LAYER: Any = (
    [
        helper.make_node("Flatten", ["x"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="layer"),
    ],
    [("x", ["batch", *SHAPE])],
    [("y", ["batch", CLASSES])],
    {"w": np.random.default_rng(0).normal(size=(math.prod(SHAPE), CLASSES)).astype(np.float32)},
)


@pytest.fixture
def case(save_graph, tmp_path):
    return calibrated(save_graph, tmp_path)


def every(samples):
    return range(len(samples))


def sqnr(scorer, model):
    return scorer.score(model, every(scorer.samples)).sqnr_db


def write(case, tmp_path, budget=BUDGET, minutes=0.001, target="vnni"):
    folder = tmp_path / "int8"
    source, ranges = tmp_path / "calibration/model.onnx", tmp_path / "calibration/ranges.json"
    return quantize_statically(
        source, ranges, TARGETS[target], case[3], Goal(budget, minutes), folder
    ), folder / "model.onnx"


@pytest.mark.parametrize("target", TARGETS)
def test_types_limits_and_zero_points_of_each_target(case, target):
    model, ranges, samples, scorer = case
    quantized = insert_qdq(model, ranges, TARGETS[target], [])
    fit_weights(model, quantized, ranges, TARGETS[target], Fit(samples, every(samples)))
    tensors, makers = initializers(quantized), producers(quantized)
    nodes = {node.name: node for node in quantized.graph.node}
    for layer in weighted_layers(model):
        node = nodes[layer.name]
        weight = makers[node.input[1]]
        if weight.input[0] in tensors:
            integers = numpy_helper.to_array(tensors[weight.input[0]])
            assert integers.dtype == np.int8 and np.abs(integers.astype(int)).max() <= 127
        zero_point = numpy_helper.to_array(tensors[makers[node.input[0]].input[2]])
        assert zero_point.dtype == TARGETS[target].activation_type
        assert not (TARGETS[target].symmetric and zero_point != 0)
    if answers_show(target):
        assert sqnr(scorer, quantized) > 20


def test_no_two_weights_that_avx2_adds_in_16_bits_saturate_it(case):
    model, ranges, samples, _ = case
    target = TARGETS["avx2"]
    quantized = insert_qdq(model, ranges, target, [])
    fit_weights(model, quantized, ranges, target, Fit(samples, every(samples)))
    graph, tensors, largest = QuantizedGraph(quantized), initializers(model), 0
    for layer in weighted_layers(model):
        matrix = as_matrix(layer, graph.array(graph.weight_tensor(layer.name)).astype(int))
        partner = weight_limits(target, layer, matrix.shape, kernel_shape(layer, tensors)).partner
        if partner is not None:
            pairs = np.where(partner >= 0, matrix + matrix[..., partner], 0)
            assert np.abs(pairs[matrix * matrix[..., partner] > 0]).max(initial=0) <= PAIR_SUM
        largest = max(largest, np.abs(matrix).max())
    assert largest == 127  # halved ones would keep to the sums, too


def test_a_bias_that_two_layers_share_keeps_its_value_and_both_run_on_integers(save_graph, tmp_path):
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="one", pads=[1] * 4),
        helper.make_node("Conv", ["c", "v", "b"], ["d"], name="two", pads=[1] * 4),
        helper.make_node("Relu", ["d"], ["y"], name="relu"),
    ]
    weights = {"w": random.normal(size=(3, 3, 3, 3)), "v": random.normal(size=(3, 3, 3, 3)), "b": random.normal(size=3)}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    model = onnx.load(save_graph(nodes, [("x", ["n", *SHAPE])], [("y", ["n", *SHAPE])], weights))
    samples = save_inputs(tmp_path)
    ranges = {"x": (-15.0, 15.0), "c": (-60.0, 60.0), "d": (0.0, 400.0), "y": (0.0, 400.0)}
    quantized = insert_qdq(model, ranges, TARGETS["avx2"], [])
    fit_weights(model, quantized, ranges, TARGETS["avx2"], Fit(samples, every(samples)))
    graph = QuantizedGraph(quantized)
    changed = graph.array("w_scale") / QuantizedGraph(insert_qdq(model, ranges, TARGETS["avx2"], [])).array("w_scale")
    assert (np.abs(changed - 1) > 0.01).all()
    for name in ("one", "two"):
        scale = graph.array("x_scale" if name == "one" else "c_scale") * graph.array(graph.weight_scale(name))
        np.testing.assert_allclose(graph.array(graph.bias_tensors(name)[1]), scale, rtol=1e-6)
        np.testing.assert_allclose(graph.bias(name), weights["b"], atol=scale.max())
    onnx.save(quantized, tmp_path / "shared.onnx")
    assert count_fused(tmp_path / "shared.onnx").unfused_nodes == 0


def test_fitting_gains_on_samples_that_it_has_not_seen(case, tmp_path):
    model, ranges, samples, _ = case
    plain = insert_qdq(model, ranges, TARGETS["avx2"], [])
    fitted = insert_qdq(model, ranges, TARGETS["avx2"], [])
    fit_weights(model, fitted, ranges, TARGETS["avx2"], Fit(samples, every(samples)))
    fresh = Scorer(tmp_path / "model.onnx", SPEC, Data(), save_inputs(tmp_path, seed=1))
    assert sqnr(fresh, fitted) > sqnr(fresh, plain) + 0.5


def test_the_bias_correction_makes_the_mean_of_the_answers_right(case):
    model, ranges, samples, scorer = case
    quantized = insert_qdq(model, ranges, TARGETS["avx2"], [])

    def mean_error(graph):
        found = [outputs["y"] for outputs in scorer.outputs(graph, every(samples))]
        wanted = [outputs["y"] for outputs in scorer.wanted]
        return np.abs(np.mean(np.concatenate(found) - np.concatenate(wanted), axis=0)).max()

    before = mean_error(quantized)
    fit_weights(model, quantized, ranges, TARGETS["avx2"], Fit(samples, every(samples)))
    assert mean_error(quantized) < 0.5 * before


def test_clipping_changes_only_what_is_beyond_a_range(case):
    model, ranges, _, scorer = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    assert sqnr(scorer, clip_activations(model, quantized, ranges)) > 80
    narrow = {name: (low / 2, high / 2) for name, (low, high) in ranges.items()}
    assert sqnr(scorer, clip_activations(model, quantized, narrow)) < 20


def test_a_copied_fit_is_the_fit(case):
    model, ranges, samples, scorer = case
    fitted = insert_qdq(model, ranges, TARGETS["avx2"], [])
    fit_weights(model, fitted, ranges, TARGETS["avx2"], Fit(samples, every(samples)))
    copy = insert_qdq(model, ranges, TARGETS["avx2"], [])
    copy_fit(fitted, copy, model)
    assert sqnr(scorer, copy) == pytest.approx(sqnr(scorer, fitted), abs=0.01)


def test_a_float_layer_is_what_the_quantizer_makes_without_it(case):
    model, ranges, _, scorer = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    released = with_float_layers(quantized, model, {"depthwise"})
    kept = insert_qdq(model, ranges, TARGETS["vnni"], ["depthwise"])
    copy_fit(quantized, kept, model)
    one, other = (scorer.outputs(graph, range(4)) for graph in (released, kept))
    for found, expected in zip(one, other, strict=True):
        np.testing.assert_allclose(found["y"], expected["y"], atol=0.01)


def test_float_layers_that_share_a_bias_have_one_copy_of_it(save_graph):
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=(4, 4)).astype(np.float32) for name in ("w1", "w2")}
    layers = [
        helper.make_node("Gemm", ["x", "w1", "b"], ["h"], name="first"),
        helper.make_node("Gemm", ["h", "w2", "b"], ["y"], name="second"),
    ]
    constants = {**weights, "b": np.ones(4, np.float32)}
    model = onnx.load(save_graph(layers, [("x", ["batch", 4])], [("y", ["batch", 4])], constants))
    quantized = insert_qdq(model, dict.fromkeys(("x", "h", "y"), (-8.0, 8.0)), TARGETS["vnni"], [])
    mixed = with_float_layers(quantized, model, {"first", "second"})
    names = [tensor.name for tensor in mixed.graph.initializer]
    assert sorted(set(names)) == sorted(names)
    x = random.normal(size=(3, 4)).astype(np.float32)
    one, other = (session_of(graph).run(["y"], {"x": x})[0] for graph in (mixed, model))
    np.testing.assert_allclose(one, other, atol=0.3)


def test_a_layer_in_float_between_quantized_ones_stays_in_float(case, tmp_path, monkeypatch):
    """ONNX Runtime would give it int8 weights, at one scale for all of them, when it loads the model."""
    model, ranges, _, _ = case
    found = {}
    for guarded in (True, False):
        if not guarded:
            monkeypatch.setattr(qdq, "keep_float", lambda quantized: None)
        onnx.save(insert_qdq(model, ranges, TARGETS["vnni"], ["project"]), tmp_path / "mixed.onnx")
        found[guarded] = count_fused(tmp_path / "mixed.onnx")
    assert found[True].requantized_nodes == 0
    assert found[False].requantized == "project"


@pytest.mark.parametrize(
    ("node", "weight", "shape"),
    [
        (helper.make_node("Conv", ["b", "w"], ["c"], name="layer", group=2), (6, 2, 1, 1), ["n", 4, 3, 3]),
        (helper.make_node("ConvTranspose", ["b", "w"], ["c"], name="layer"), (4, 3, 2, 2), ["n", 4, 3, 3]),
        (helper.make_node("Gemm", ["b", "w"], ["c"], name="layer"), (4, 5), ["n", 4]),
        (helper.make_node("Gemm", ["b", "w"], ["c"], name="layer", transB=1), (5, 4), ["n", 4]),
    ],
)
def test_every_layer_that_onnx_runtime_would_quantize_is_kept(save_graph, node, weight, shape):
    parameters = {"s": np.array(0.1, np.float32), "z": np.array(3, np.uint8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        node,
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["d", "s", "z"], ["y"]),
    ]
    weights = {"w": np.random.default_rng(0).normal(size=weight).astype(np.float32), **parameters}
    path = save_graph(nodes, [("x", shape)], [("y", ["?"] * len(shape))], weights)
    model = onnx.load(path)
    x = {"x": np.random.default_rng(1).normal(size=[2, *shape[1:]]).astype(np.float32)}
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    (expected,) = InferenceSession(str(path), options).run(None, x)
    assert count_fused(path).requantized == "layer"
    qdq.keep_float(model)
    onnx.save(model, path)
    assert count_fused(path).requantized == ""
    np.testing.assert_allclose(session_of(model).run(None, x)[0], expected, atol=1e-6)


def test_an_answer_beyond_what_calibration_has_seen_is_not_cut_off(case):
    model, ranges, _, scorer = case
    narrow = ranges | {"y": (-0.01, 0.01)}
    assert sqnr(scorer, insert_qdq(model, narrow, TARGETS["avx2"], [])) > 20


@pytest.mark.parametrize("bounds", [(2.0, 6.0), (-6.0, -2.0)])
def test_a_clip_that_a_range_cannot_stand_for_is_kept(save_graph, bounds):
    """Every range holds 0, which this Clip keeps out."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Clip", ["c", "low", "high"], ["k"], name="clip"),
        helper.make_node("Conv", ["k", "w"], ["y"], name="last"),
    ]
    constants = {name: np.array(value, np.float32) for name, value in zip(("low", "high"), bounds, strict=True)}
    weights = {"w": np.eye(3, dtype=np.float32)[:, :, None, None], **constants}
    model = onnx.load(save_graph(nodes, [("x", ["n", *SHAPE])], [("y", ["n", *SHAPE])], weights))
    whole = (min(bounds[0], 0.0), max(bounds[1], 0.0))
    quantized = insert_qdq(model, {"x": (-10.0, 10.0), "k": whole, "y": whole}, TARGETS["vnni"], [])
    (found,) = session_of(quantized).run(None, {"x": np.linspace(-9, 9, 192, dtype=np.float32).reshape(1, *SHAPE)})
    np.testing.assert_allclose([found.min(), found.max()], bounds, atol=0.05)


def test_an_output_that_is_a_constant_stays(save_graph):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
        helper.make_node("Constant", [], ["z"], value_float=2.0),
    ]
    weights = {"w": np.eye(3, dtype=np.float32)[:, :, None, None]}
    model = onnx.load(
        save_graph(nodes, [("x", ["n", *SHAPE])], [("y", ["n", *SHAPE]), ("z", []), ("w", [3, 3, 1, 1])], weights)
    )
    quantized = insert_qdq(model, dict.fromkeys("xy", (-1.0, 1.0)), TARGETS["vnni"], [])
    found = session_of(quantized).run(["z"], {"x": np.zeros((1, *SHAPE), np.float32)})
    assert found == [2.0]


def test_an_output_that_is_no_product_or_that_others_take_stays_quantized(save_graph):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
        helper.make_node("Flatten", ["x"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "v"], ["z"], name="gemm"),
        helper.make_node("MatMul", ["z", "u"], ["t"], name="matmul"),
    ]
    weights = {
        "w": np.ones((2, 2, 1, 1), np.float32),
        "v": np.ones((8, 3), np.float32),
        "u": np.ones((3, 3), np.float32),
    }
    outputs = [("y", ["n", 2, 2, 2]), ("z", ["n", 3]), ("t", ["n", 3])]
    model = onnx.load(save_graph(nodes, [("x", ["n", 2, 2, 2])], outputs, weights))
    quantized = insert_qdq(model, dict.fromkeys("xyfzt", (0.0, 1.0)), TARGETS["vnni"], [])
    makers = producers(quantized)
    assert {name: makers[name].op_type for name in "yzt"} == {
        **{"y": "DequantizeLinear", "z": "DequantizeLinear", "t": "MatMul"}
    }


def test_a_budget_that_the_first_graph_meets_keeps_nothing_in_float(case, tmp_path):
    metrics, path = write(case, tmp_path)
    assert metrics.budget_met and metrics.float_layers == "" and metrics.fitted_graphs == 1
    assert metrics.weight_type == "int8" and metrics.activation_type == "uint8"
    onnx.checker.check_model(str(path), full_check=True)


def test_a_tighter_budget_keeps_layers_in_float_and_is_met(case, tmp_path):
    everything, _ = write(case, tmp_path)
    bound = everything.calibration_sqnr_db + 0.5 - MARGIN_DB
    metrics, _ = write(case, tmp_path, Budget(sqnr_db=bound), minutes=1)
    assert metrics.budget_met and metrics.calibration_sqnr_db >= bound + MARGIN_DB
    assert 0 < len(metrics.float_layers.split(", ")) < 6


def test_a_budget_that_nothing_can_meet_gives_the_best_and_says_so(case, tmp_path):
    metrics, path = write(case, tmp_path, Budget(sqnr_db=200), minutes=0.01)
    assert not metrics.budget_met and f"budget.sqnr_db is 200 and the margin {MARGIN_DB:g}" in metrics.budget_failure
    assert path.is_file() and metrics.calibration_sqnr_db >= write(case, tmp_path)[0].calibration_sqnr_db


def test_the_same_search_gives_the_same_bytes(case, tmp_path):
    first, second = (write(case, tmp_path, Budget(sqnr_db=200), minutes=0.002)[1].read_bytes() for _ in range(2))
    assert first == second


def test_an_interrupted_search_leaves_what_stood_there(case, tmp_path, monkeypatch):
    _, path = write(case, tmp_path)
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(search_module, "refine_ranges", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(case, tmp_path, minutes=1.0)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("target", TARGETS)
def test_weights_in_a_file_of_their_own_give_the_same_graph(case, tmp_path, target):
    """As for a network over 2 GB; the budget is out of reach, so ranges are refined; for one target, layers tried."""
    budget, minutes = Budget(sqnr_db=200), 0.01 if target == "vnni" else 0.003
    metrics, path = write(case, tmp_path, budget, minutes, target)
    whole = onnx.load(path)
    path = tmp_path / "calibration/model.onnx"
    onnx.save_model(case[0], path, save_as_external_data=True, size_threshold=100, location="weights")
    assert (tmp_path / "calibration/weights").is_file()
    again, path = write(case, tmp_path, budget, minutes, target)
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    # ONNX Runtime multiplies weights that it has packed in another order, so sums differ by their rounding.
    assert again.calibration_sqnr_db == pytest.approx(metrics.calibration_sqnr_db, abs=0.01)
    assert again.float_layers == metrics.float_layers and list(onnx.load(path).graph.node) == list(whole.graph.node)
    for one, other in zip(onnx.load(path).graph.initializer, whole.graph.initializer, strict=True):
        np.testing.assert_allclose(numpy_helper.to_array(one), numpy_helper.to_array(other), rtol=1e-4, atol=1e-6)


def test_a_range_that_shape_cases_need_is_not_narrowed(case, tmp_path):
    """Every range is 16 times too wide for the samples, and so narrowed, except where the file forbids it."""
    path = tmp_path / "calibration/ranges.json"
    content = read_json(path)
    wide = {name: [16 * low, 16 * high] for name, (low, high) in content["ranges"].items()}
    found = []
    for narrowest in ({}, dict.fromkeys(wide, 1.0)):
        write_json(path, content | {"ranges": wide, "narrowest": narrowest})
        _, written = write(case, tmp_path, Budget(sqnr_db=10), minutes=1.0)
        scale = numpy_helper.to_array(initializers(onnx.load(written))["x_scale"])
        found.append(float(scale) * 255 / (wide["x"][1] - wide["x"][0]))
    assert found[0] < 0.5 and found[1] >= 1 - 1e-6


def test_a_quantized_model_is_refused(case, tmp_path):
    _, path = write(case, tmp_path)
    with pytest.raises(GraphError, match="already quantized"):
        quantize_statically(
            path, tmp_path / "calibration/ranges.json", TARGETS["vnni"], case[3], Goal(BUDGET, 1), tmp_path / "no"
        )


def test_a_graph_with_every_node_in_float_is_not_made(case, tmp_path):
    """It would give the answers of float under another name."""
    model, _, _, scorer = case
    source, ranges = tmp_path / "calibration/model.onnx", tmp_path / "calibration/ranges.json"
    every_node = Goal(BUDGET, 0.001, frozenset(node.name for node in model.graph.node))
    with pytest.raises(GraphError, match=r"on integers: `exclude` keeps .* fix: leave int8_static out of `variants`"):
        quantize_statically(source, ranges, TARGETS["vnni"], scorer, every_node, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_budget_that_only_float_keeps_is_told(save_graph, tmp_path):
    model, samples = save_graph(*ONE_LAYER), save_inputs(tmp_path)
    calibrate(model, SPEC, samples, CALIBRATE, tmp_path / "calibration")
    case = None, None, samples, Scorer(model, SPEC, Data(), samples)
    with pytest.raises(GraphError, match=r"to come near the budget, the search keeps layer in float.* a looser"):
        write(case, tmp_path, Budget(sqnr_db=90), 1.0)
    assert not (tmp_path / "int8").exists()


def test_what_runs_on_integers_is_counted_and_the_rest_has_a_reason(case, tmp_path):
    metrics, _ = write(case, tmp_path)
    assert metrics.quantized_nodes == metrics.fused_nodes + metrics.unfused_nodes
    assert metrics.fused_nodes >= 7  # five Convs, the Add and the Gemm
    assert metrics.unfused == "mean (ReduceMean): ONNX Runtime has no integer kernel for it in this form on this CPU"
    assert count_fused(tmp_path / "model.onnx").quantized_nodes == 0


def test_a_node_between_floats_is_told(case, tmp_path):
    model, ranges, _, _ = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    mixed = with_float_layers(quantized, model, {"inner"})
    add = next(node for node in mixed.graph.node if node.name == "add")
    add.input[1] = producers(mixed)[producers(mixed)[add.input[1]].input[0]].input[0]
    onnx.save(mixed, tmp_path / "mixed.onnx")
    assert "add (Add): its input c4 is in float" in count_fused(tmp_path / "mixed.onnx").unfused
    assert session_of(mixed)


def test_a_graph_that_makes_nan_is_beyond_any_budget_and_a_perfect_one_within(case, tmp_path):
    model, _, _, scorer = case
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    tensor = initializers(broken)["b6"]
    tensor.CopyFrom(numpy_helper.from_array(np.full(5, np.nan, np.float32), "b6"))
    figures = scorer.score(broken, every(scorer.samples))
    assert over_budget(figures, BUDGET)[0] == "an output has NaN or infinity"
    perfect = scorer.score(onnx.load(tmp_path / "model.onnx"), every(scorer.samples))
    assert (perfect.sqnr_db, perfect.max_abs_error) == (None, 0.0)
    assert figures.signal < scorer.score(model, every(scorer.samples)).signal < perfect.signal
