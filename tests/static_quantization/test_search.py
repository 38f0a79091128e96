"""What the search tries, in which order, on what, and what it takes for better."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_release.core.files import read_json
from onnx_release.core.spec import Budget, Output
from onnx_release.graph.layers import initializers
from onnx_release.graph.targets import TARGETS
from onnx_release.measure.closeness import Closeness
from onnx_release.reduce.calibrate import calibrate
from onnx_release.static_quantization import search as search_module
from onnx_release.static_quantization.compute_limit import measure_work
from onnx_release.static_quantization.qdq import insert_qdq
from onnx_release.static_quantization.refine import COARSE, FINE
from onnx_release.static_quantization.scoring import Scorer
from onnx_release.static_quantization.search import MARGIN_DB, Attempt, Goal, Search, better, is_gain, search
from tests.residual import CALIBRATE, SHAPE, SPEC, Data, calibrated, save_inputs
from tests.samples import save_samples

VNNI = TARGETS["vnni"]
BUDGET = Budget(agreement=0.5)
UNREACHABLE = Budget(sqnr_db=200)
# Of work, enough for one fit.
ONE_FIT = 0.001


@pytest.fixture
def case(save_graph, tmp_path):
    return calibrated(save_graph, tmp_path)


def attempt(price, sqnr_db, *failures, max_abs_error=1.0):
    return Attempt(onnx.ModelProto(), {}, frozenset(), price, Closeness(sqnr_db, max_abs_error, 1.0), list(failures))


def test_of_two_that_meet_the_budget_the_one_with_less_float_work_is_better():
    cheap, close = attempt(1.0, 20.0), attempt(2.0, 30.0)
    assert better(cheap, close) is cheap and better(close, cheap) is cheap
    assert better(cheap, closer := attempt(1.0, 21.0)) is closer
    failing = attempt(0.0, 40.0, "too bad")
    assert better(failing, close) is close
    assert better(failing, closest := attempt(9.0, 41.0, "too bad")) is closest


def test_the_sensitivity_finds_the_layer_that_was_spoilt(case):
    model, ranges, _, scorer = case
    quantized = insert_qdq(model, ranges, TARGETS["avx2"], [])  # or other weights are spoilt on a CPU without VNNI
    tensor = initializers(quantized)["w2_quantized"]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) // 64 * 64, tensor.name))
    steps = Search(model, ranges, TARGETS["avx2"], scorer, Goal(BUDGET, 1.0))
    gains = steps.sensitivities(steps.attempt(quantized, ranges, frozenset()), steps.layers)
    assert max(gains, key=lambda name: gains[name]) == "depthwise"


def test_after_a_set_that_meets_the_budget_the_search_tries_cheaper_ones(case, monkeypatch):
    model, ranges, samples, scorer = case
    macs = measure_work(model, ranges, samples).macs
    everything = search(model, ranges, VNNI, scorer, Goal(BUDGET, ONE_FIT)).best
    bound = everything.closeness.signal + 0.5 - MARGIN_DB
    budget = Budget(sqnr_db=bound)
    cheap = search(model, ranges, VNNI, scorer, Goal(budget, 1)).best
    assert 0 < len(cheap.float_nodes) < len(macs)
    estimates = [
        replace(cheap, float_nodes=frozenset(layers), price=sum(macs[name] for name in layers), failures=[])
        for layers in (macs, cheap.float_nodes)
    ]
    monkeypatch.setattr(Search, "candidates", lambda *_: estimates)
    assert search(model, ranges, VNNI, scorer, Goal(budget, 1)).best.float_nodes == cheap.float_nodes


def test_more_minutes_buy_at_least_as_much(case):
    model, ranges, _, scorer = case
    found = [
        search(model, ranges, TARGETS["avx2"], scorer, Goal(UNREACHABLE, minutes)).best.closeness.signal
        for minutes in (1e-6, 0.05)
    ]
    assert found[1] > found[0] + 1


def test_operators_without_weights_stay_in_float_where_the_limit_ends_before_the_budget_is_met(save_graph, tmp_path):
    """Between the two Adds, 8 bits have nothing left of what the convolutions make and take."""
    random = np.random.default_rng(0)
    weights = {
        "w1": random.normal(size=(8, 3, 3, 3), scale=0.2).astype(np.float32),
        "w2": random.normal(size=(8, 8, 3, 3), scale=0.2).astype(np.float32),
        "much": np.array(1e3, np.float32),
        "less": np.array(-1e3, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], name="before", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "much"], ["large"], name="up"),
        helper.make_node("Add", ["large", "less"], ["again"], name="down"),
        helper.make_node("Conv", ["again", "w2"], ["y"], name="after", pads=[1, 1, 1, 1]),
    ]
    path = save_graph(nodes, [("x", ["batch", *SHAPE])], [("y", ["batch", 8, 8, 8])], weights)
    output = Output(name="y", dtype="float32", shape=["batch", 8, 8, 8])
    spec = SPEC.model_copy(update={"task": "tensor", "outputs": [output]})
    samples = save_inputs(tmp_path)
    calibrate(path, spec, samples, CALIBRATE, tmp_path / "calibration")
    ranges = read_json(tmp_path / "calibration/ranges.json")["ranges"]
    model, scorer = onnx.load(tmp_path / "calibration/model.onnx"), Scorer(path, spec, Data(), samples)
    found = search(model, ranges, VNNI, scorer, Goal(Budget(sqnr_db=25), 1e-6)).best
    assert not found.failures and found.float_nodes == {"up", "down"}


@pytest.fixture
def calls(monkeypatch):
    """What a search does: refine on so many samples in these steps, or ask for sensitivities."""
    found: list[object] = []

    def refine(quantized, bounds, sweep, scorer, limit, weights):
        found.append((len(sweep.indices), sweep.steps))
        return {}

    def ask(steps, best, units):
        found.append("types" if units is steps.types else "layers")
        return {}

    monkeypatch.setattr(search_module, "refine_ranges", refine)
    monkeypatch.setattr(Search, "sensitivities", ask)
    return found


def test_ranges_are_refined_before_any_layer_is_kept_in_float(case, calls):
    model, ranges, _, scorer = case
    search(model, ranges, VNNI, scorer, Goal(UNREACHABLE, 1))
    assert calls == [(24, COARSE), "types", "layers", (24, COARSE), (24, FINE)]


def test_a_budget_that_is_met_needs_no_sensitivities(case, calls):
    model, ranges, _, scorer = case
    search(model, ranges, VNNI, scorer, Goal(BUDGET, 1.0))
    assert calls == [(24, COARSE), (24, FINE)]


def test_what_few_samples_can_tell_is_asked_of_more(case, calls, tmp_path):
    model, ranges, _, scorer = case
    scorer.samples = save_inputs(tmp_path, 100)
    scorer.wanted = scorer.outputs(model, range(100))
    search(model, ranges, VNNI, scorer, Goal(BUDGET, 1.0))
    assert calls == [(25, COARSE), (50, FINE), (100, FINE)]


def test_a_third_of_the_work_is_left_to_layers_in_float(case, monkeypatch):
    model, ranges, _, scorer = case
    shares, left = [], []

    def use_up(quantized, bounds, sweep, scorer, limit, weights):
        shares.append(limit.reserved / limit.total)
        limit.total = limit.reserved
        return {}

    def ask(steps, *_):
        left.append(steps.limit.left)
        return {}

    monkeypatch.setattr(search_module, "refine_ranges", use_up)
    monkeypatch.setattr(Search, "sensitivities", ask)
    search(model, ranges, VNNI, scorer, Goal(UNREACHABLE, 1))
    assert shares[0] == pytest.approx(1 / 3) and left[0] > 0


def test_without_work_one_graph_is_fitted(case):
    model, ranges, _, scorer = case
    result = search(model, ranges, VNNI, scorer, Goal(UNREACHABLE, 1e-9))
    assert result.fitted == 1 and result.best.failures


def test_a_network_without_weights_stays_as_it_is(save_graph, make_spec, tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    source = save_graph([node], [("x", ["n", 2])], [("y", ["n", 2])])
    samples = save_samples(tmp_path / "whole.npz", [np.array([0, 255], np.float32), np.array([17, 3], np.float32)])
    scorer = Scorer(source, make_spec({"x": ["n", 2]}, {"y": ["n", 2]}, n=(1, 4, 2)), Data(), samples)
    result = search(onnx.load(source), {"x": (0.0, 255.0), "y": (0.0, 255.0)}, VNNI, scorer, Goal(UNREACHABLE, 1))
    assert result.best.closeness.signal == np.inf and result.fitted == 1 and not result.best.failures


def test_a_sweep_gains_by_a_tenth_of_a_decibel_and_not_from_infinity_to_infinity():
    assert is_gain(attempt(0, 20.0), attempt(0, 20.2)) and not is_gain(attempt(0, 20.0), attempt(0, 20.05))
    perfect = attempt(0, None, max_abs_error=0.0)
    assert not is_gain(perfect, perfect) and is_gain(attempt(0, 20.0), perfect)
