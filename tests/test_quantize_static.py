"""Quantization for each target on a small network: types, fitting, search, budget and what runs on integers."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_release import search as search_module
from onnx_release.activations import session_of
from onnx_release.calibrate import calibrate
from onnx_release.errors import GraphError, ParameterError
from onnx_release.files import read_json
from onnx_release.fusion import fusion_metrics
from onnx_release.judge import Judge
from onnx_release.layers import initializers, weighted_layers
from onnx_release.params import Budget, Calibrate
from onnx_release.qdq import clip_activations, insert_qdq, producers, quantized_activations, with_float_layers
from onnx_release.quantize_static import quantize_statically
from onnx_release.refine import refine_ranges, with_scaled_range
from onnx_release.rounding import copy_fit, fit_weights, read_bias
from onnx_release.search import MARGIN_DB, Work, judged, search, sensitivities, signal
from onnx_release.targets import TARGETS
from tests.residual import SPEC, Data, save_inputs, save_network

BUDGET = Budget(agreement=0.5, accuracy_drop=None, sqnr_db=None, minutes=0.001)
PARAMS = Calibrate(method="minmax", percentile=99.99, bins=2048, chunk=8)


@pytest.fixture
def case(save_graph, tmp_path):
    """The calibrated network, its ranges, samples, and a judge."""
    source = save_network(save_graph)
    samples = save_inputs(tmp_path)
    calibrate(source, SPEC, samples, PARAMS, tmp_path / "calibration")
    judge = Judge(source, SPEC, Data(), samples)
    ranges = read_json(tmp_path / "calibration/ranges.json")["ranges"]
    return onnx.load(tmp_path / "calibration/model.onnx"), ranges, samples, judge


def every(samples):
    return range(len(samples))


def sqnr(judge, model):
    return judge.figures(model, every(judge.samples))["sqnr_db"]


def write(case, tmp_path, budget=BUDGET, target="vnni"):
    folder = tmp_path / "int8"
    source, ranges = tmp_path / "calibration/model.onnx", tmp_path / "calibration/ranges.json"
    return quantize_statically(source, ranges, TARGETS[target], case[3], budget, folder), folder / "model.onnx"


@pytest.mark.parametrize("target", TARGETS)
def test_types_limits_and_zero_points_of_each_target(case, target):
    model, ranges, samples, judge = case
    quantized = insert_qdq(model, ranges, TARGETS[target], [])
    fit_weights(model, quantized, ranges, TARGETS[target], samples, every(samples))
    tensors, makers = initializers(quantized), producers(quantized)
    nodes = {node.name: node for node in quantized.graph.node}
    for layer in weighted_layers(model):
        node = nodes[layer.name]
        weight = makers[node.input[1]]
        if weight.input[0] in tensors:
            integers = numpy_helper.to_array(tensors[weight.input[0]])
            assert integers.dtype == np.int8 and np.abs(integers.astype(int)).max() <= TARGETS[target].weight_limit
        zero_point = numpy_helper.to_array(tensors[makers[node.input[0]].input[2]])
        assert zero_point.dtype == TARGETS[target].activation_type
        assert not (TARGETS[target].symmetric and zero_point != 0)
    assert sqnr(judge, quantized) > 20


def test_fitting_gains_on_samples_that_it_has_not_seen(case, tmp_path):
    model, ranges, samples, _ = case
    plain = insert_qdq(model, ranges, TARGETS["avx2"], [])
    fitted = insert_qdq(model, ranges, TARGETS["avx2"], [])
    fit_weights(model, fitted, ranges, TARGETS["avx2"], samples, every(samples))
    fresh = Judge(tmp_path / "model.onnx", SPEC, Data(), save_inputs(tmp_path, seed=1))
    assert sqnr(fresh, fitted) > sqnr(fresh, plain) + 0.5


def test_the_bias_correction_makes_the_mean_of_the_answers_right(case):
    model, ranges, samples, judge = case
    quantized = insert_qdq(model, ranges, TARGETS["avx2"], [])

    def mean_error(graph):
        found = [outputs["y"] for outputs in judge.outputs(graph, every(samples))]
        wanted = [outputs["y"] for outputs in judge.wanted]
        return np.abs(np.mean(np.concatenate(found) - np.concatenate(wanted), axis=0)).max()

    before = mean_error(quantized)
    fit_weights(model, quantized, ranges, TARGETS["avx2"], samples, every(samples))
    assert mean_error(quantized) < 0.5 * before


def test_clipping_changes_only_what_is_beyond_a_range(case):
    model, ranges, _, judge = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    assert sqnr(judge, clip_activations(model, quantized, ranges)) > 80
    narrow = {name: (low / 2, high / 2) for name, (low, high) in ranges.items()}
    assert sqnr(judge, clip_activations(model, quantized, narrow)) < 20


def test_a_float_layer_is_what_the_quantizer_makes_without_it(case):
    model, ranges, _, judge = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    released = with_float_layers(quantized, model, {"depthwise"})
    kept = insert_qdq(model, ranges, TARGETS["vnni"], ["depthwise"])
    copy_fit(quantized, kept, model)
    one, other = (judge.outputs(graph, range(4)) for graph in (released, kept))
    for found, expected in zip(one, other, strict=True):
        np.testing.assert_allclose(found["y"], expected["y"], atol=0.01)


def test_a_copied_fit_is_the_fit(case):
    model, ranges, samples, judge = case
    fitted = insert_qdq(model, ranges, TARGETS["avx2"], [])
    fit_weights(model, fitted, ranges, TARGETS["avx2"], samples, every(samples))
    copy = insert_qdq(model, ranges, TARGETS["avx2"], [])
    copy_fit(fitted, copy, model)
    assert sqnr(judge, copy) == pytest.approx(sqnr(judge, fitted), abs=0.01)


def test_a_wider_range_keeps_zero_points_and_biases(case):
    model, ranges, _, _ = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    wider = with_scaled_range(quantized, "r1", 2.0)
    biases = []
    for graph in (quantized, wider):
        node = next(node for node in graph.graph.node if node.name == "depthwise")
        biases.append(read_bias(node, producers(graph), initializers(graph)))
    np.testing.assert_allclose(biases[1], biases[0], atol=1e-3)
    scales = [numpy_helper.to_array(initializers(graph)["r1_scale"]) for graph in (quantized, wider)]
    assert scales[1] == 2 * scales[0]


def test_refining_mends_a_range_that_is_far_too_wide(case):
    model, ranges, _, judge = case
    wrong = ranges | {"x": (20 * ranges["x"][0], 20 * ranges["x"][1])}
    quantized = insert_qdq(model, wrong, TARGETS["vnni"], [])
    names = sorted(quantized_activations(quantized))
    refined, factors = refine_ranges(quantized, names, lambda graph: sqnr(judge, graph), lambda: True)
    assert factors["x"] < 0.3
    assert sqnr(judge, refined) > sqnr(judge, quantized) + 5
    same, none = refine_ranges(quantized, names, lambda graph: sqnr(judge, graph), lambda: False)
    assert same is quantized and not none


def test_the_sensitivity_finds_the_layer_that_was_spoilt(case):
    model, ranges, _, judge = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    tensor = initializers(quantized)["w2_quantized"]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) // 64 * 64, tensor.name))
    macs = dict.fromkeys((layer.name for layer in weighted_layers(model)), 1.0)
    gains = sensitivities(quantized, model, macs, lambda graph: sqnr(judge, graph), Work(1e9))
    assert max(gains, key=lambda name: gains[name]) == "depthwise"


def test_a_budget_that_the_first_graph_meets_keeps_nothing_in_float(case, tmp_path):
    metrics, path = write(case, tmp_path)
    assert metrics["budget_met"] and metrics["float_layers"] == "" and metrics["fitted_graphs"] == 1
    assert metrics["weight_type"] == "int8" and metrics["activation_type"] == "uint8"
    onnx.checker.check_model(str(path), full_check=True)


def test_a_tighter_budget_keeps_layers_in_float_and_is_met(case, tmp_path):
    everything, _ = write(case, tmp_path)
    bound = everything["calibration_sqnr_db"] + 0.5 - MARGIN_DB
    budget = Budget(agreement=None, accuracy_drop=None, sqnr_db=bound, minutes=1)
    metrics, _ = write(case, tmp_path, budget)
    assert metrics["budget_met"] and metrics["calibration_sqnr_db"] >= bound + MARGIN_DB
    assert 0 < len(metrics["float_layers"].split(", ")) < 6


def test_a_budget_that_nothing_can_meet_gives_the_best_and_says_so(case, tmp_path):
    budget = Budget(agreement=None, accuracy_drop=None, sqnr_db=200, minutes=0.01)
    metrics, path = write(case, tmp_path, budget)
    assert not metrics["budget_met"] and "budget.sqnr_db is 200 and the margin 1" in metrics["budget_failure"]
    assert path.is_file() and metrics["calibration_sqnr_db"] >= write(case, tmp_path)[0]["calibration_sqnr_db"]


def test_more_minutes_buy_at_least_as_much(case):
    model, ranges, _, judge = case
    bounds = {"agreement": None, "accuracy_drop": None, "sqnr_db": 200.0}
    found = [
        search(model, ranges, TARGETS["avx2"], judge, Budget(minutes=minutes, **bounds)).best.figures["sqnr_db"]
        for minutes in (1e-6, 0.05)
    ]
    assert found[1] > found[0] + 1


def test_the_same_search_gives_the_same_bytes(case, tmp_path):
    budget = Budget(agreement=None, accuracy_drop=None, sqnr_db=200, minutes=0.002)
    first = write(case, tmp_path, budget)[1].read_bytes()
    assert write(case, tmp_path, budget)[1].read_bytes() == first


def test_an_interrupted_search_leaves_what_stood_there(case, tmp_path, monkeypatch):
    _, path = write(case, tmp_path)
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(search_module, "refine_ranges", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(case, tmp_path)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


def test_a_quantized_model_is_refused(case, tmp_path):
    _, path = write(case, tmp_path)
    with pytest.raises(GraphError, match="already quantized"):
        quantize_statically(
            path, tmp_path / "calibration/ranges.json", TARGETS["vnni"], case[3], BUDGET, tmp_path / "no"
        )


def test_a_budget_of_classes_for_a_task_without_is_an_error(case, tmp_path):
    case[3].spec = SPEC.model_copy(update={"task": "tensor"})
    with pytest.raises(ParameterError, match=r"Set budget\.sqnr_db"):
        write(case, tmp_path)


def test_what_runs_on_integers_is_counted_and_the_rest_has_a_reason(case, tmp_path):
    metrics, _ = write(case, tmp_path)
    assert metrics["quantized_nodes"] == metrics["fused_nodes"] + metrics["unfused_nodes"]
    assert metrics["fused_nodes"] >= 7  # five Convs, the Add and the Gemm
    assert metrics["unfused"] == "mean (ReduceMean): ONNX Runtime has no integer kernel for it in this form on this CPU"
    assert fusion_metrics(tmp_path / "model.onnx")["quantized_nodes"] == 0


def test_a_node_between_floats_is_told(case, tmp_path):
    model, ranges, _, _ = case
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    mixed = with_float_layers(quantized, model, {"inner"})
    add = next(node for node in mixed.graph.node if node.name == "add")
    add.input[1] = producers(mixed)[producers(mixed)[add.input[1]].input[0]].input[0]
    onnx.save(mixed, tmp_path / "mixed.onnx")
    assert "add (Add): its input c4 is in float" in fusion_metrics(tmp_path / "mixed.onnx")["unfused"]
    assert session_of(mixed)


def test_a_graph_that_makes_nan_is_beyond_any_budget_and_a_perfect_one_within(case, tmp_path):
    model, _, _, judge = case
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    tensor = initializers(broken)["b6"]
    tensor.CopyFrom(numpy_helper.from_array(np.full(5, np.nan, np.float32), "b6"))
    trial = judged(broken, frozenset(), judge, BUDGET)
    assert "an output holds NaN or infinity" in trial.failures
    perfect = judge.figures(onnx.load(tmp_path / "model.onnx"), every(judge.samples))
    assert (perfect["sqnr_db"], perfect["max_abs_error"]) == (None, 0.0)
    assert signal(trial.figures) < signal(judge.figures(model, every(judge.samples))) < signal(perfect)
