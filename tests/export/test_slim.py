"""Slimming: fewer nodes, the same answers, and an error where either cannot be had."""

import re
import weakref

import numpy as np
import onnxruntime
import onnxslim
import pytest
from onnx import helper, numpy_helper

from onnx_release.core.array_files import ArrayFile, writing_arrays
from onnx_release.core.errors import GraphError
from onnx_release.core.params import Slim
from onnx_release.export.slim import check_same_answers, slim_metrics, slim_model
from onnx_release.graph.graph import EXTERNAL_DATA, external_files, load_model, save_model
from onnx_release.runtime.session import open_session, run_session

PARAMS = Slim(skip_fusion_patterns=[], atol=1e-4, rtol=1e-3)
X = np.array([[1.0, -2.0, 3.0]], np.float32)


@pytest.fixture
def redundant(save_graph):
    """relu(x) twice, one of them through an Identity, added."""
    nodes = [
        helper.make_node("Identity", ["x"], ["same"], name="identity"),
        helper.make_node("Relu", ["same"], ["a"], name="first"),
        helper.make_node("Relu", ["x"], ["b"], name="second"),
        helper.make_node("Add", ["a", "b"], ["y"], name="add"),
    ]
    return save_graph(nodes, [("x", ["batch", 3])], [("y", ["batch", 3])], name="before/model.onnx")


@pytest.fixture
def cases(tmp_path):
    path = tmp_path / "cases.npz"
    with writing_arrays(path) as writer:
        writer.add_all("batch=1/inputs", {"x": X})
        writer.add_all("batch=1/float32", {"y": X})  # PyTorch's answers are there too, and not compared with here
        writer.add_all("batch=2/inputs", {"x": np.concatenate([-X, X])})
    return path


@pytest.fixture
def scaled(save_graph):
    """y = x * factor in one file, and z = x + offset."""

    def save(name, factor, offset=0.0):
        nodes = [helper.make_node("Mul", ["x", "factor"], ["y"]), helper.make_node("Add", ["x", "offset"], ["z"])]
        weights = {"factor": np.array(factor, np.float32), "offset": np.array(offset, np.float32)}
        return save_graph(nodes, [("x", ["batch", 3])], [("y", ["batch", 3]), ("z", ["batch", 3])], weights, name)

    return save


def test_a_redundant_graph_gets_fewer_nodes_and_the_same_answers(redundant, cases, tmp_path):
    slim_model(redundant, cases, PARAMS, tmp_path / "out")
    path = tmp_path / "out/model.onnx"
    operators = sorted(node.op_type for node in load_model(path).graph.node)
    assert operators == ["Add", "Relu"]
    assert run_session(open_session(path), {"x": X})["y"].tolist() == [[2, 0, 6]]
    metrics = slim_metrics(redundant, path)
    assert (metrics.nodes_before, metrics.nodes_after) == (4, 2)
    assert metrics.size_mb_before == redundant.stat().st_size / 1e6
    assert metrics.size_mb_after == path.stat().st_size / 1e6


def test_an_input_that_no_node_takes_stays_at_its_place(save_graph, tmp_path):
    shape = ["batch", 3]
    relu = helper.make_node("Relu", ["x"], ["y"], name="relu")
    path = save_graph([relu], [("unused", shape), ("x", shape)], [("y", shape)], name="before/model.onnx")
    with writing_arrays(tmp_path / "cases.npz") as writer:
        writer.add_all("batch=1/inputs", {"x": X, "unused": X})
    slim_model(path, tmp_path / "cases.npz", PARAMS, tmp_path / "out")
    slimmed = open_session(tmp_path / "out/model.onnx")
    assert [(value.name, value.shape) for value in slimmed.get_inputs()] == [("unused", shape), ("x", shape)]
    assert run_session(slimmed, {"x": X, "unused": X})["y"].tolist() == [[1, 0, 3]]


def test_the_same_graph_gives_the_same_bytes(redundant, cases, tmp_path):
    for name in ("first", "second"):
        slim_model(redundant, cases, PARAMS, tmp_path / name)
    first, second = (tmp_path / name / "model.onnx" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert str(tmp_path).encode() not in first.read_bytes()


@pytest.fixture
def outside(save_graph, tmp_path):
    """x @ large + 0 + small, twice the same, with both weights in another file, as of a network over 2 GB."""
    nodes = [
        helper.make_node("MatMul", ["x", "large"], ["h"], name="product"),
        helper.make_node("Add", ["h", "nothing"], ["same"], name="nothing"),
        helper.make_node("Add", ["same", "small"], ["a"], name="first"),
        helper.make_node("Add", ["same", "small"], ["b"], name="second"),
        helper.make_node("Add", ["a", "b"], ["y"], name="sum"),
    ]
    random = np.random.default_rng(0)
    weights = {
        "large": random.standard_normal((3, 8192), np.float32),
        "small": random.standard_normal(8192, np.float32),
        "nothing": np.zeros((), np.float32),
    }
    path = save_graph(nodes, [("x", ["batch", 3])], [("y", ["batch", 8192])], weights, "whole.onnx")
    (tmp_path / "before").mkdir()
    return save_model(load_model(path), tmp_path / "before", threshold=0), weights


def test_large_weights_in_another_file_are_kept_from_onnxslim_and_all_else_is_slimmed(
    outside, cases, tmp_path, monkeypatch
):
    source, weights = outside
    shown = []
    slim = onnxslim.slim

    def watched(model, **options):
        shown.append([(tensor.name, len(tensor.raw_data)) for tensor in model.graph.initializer])
        return slim(model, **options)

    monkeypatch.setattr(onnxslim, "slim", watched)
    for name in ("first", "second"):
        slim_model(source, cases, PARAMS, tmp_path / name)
    assert sorted(shown[0]) == [("nothing", 4), ("small", 4 * 8192)]
    path = tmp_path / "first/model.onnx"
    model = load_model(path)
    assert sorted(node.op_type for node in model.graph.node) == ["Add", "Add", "MatMul"]
    assert [value.name for value in model.graph.input] == ["x"]
    assert external_files(path) == {EXTERNAL_DATA}
    assert path.with_name(EXTERNAL_DATA).read_bytes() == weights["large"].tobytes()
    expected = 2 * (X @ weights["large"] + weights["small"])
    np.testing.assert_allclose(run_session(open_session(path), {"x": X})["y"], expected, rtol=1e-5, atol=1e-5)
    for file in ("model.onnx", EXTERNAL_DATA):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_a_large_weight_that_nothing_uses_is_dropped(outside, cases, tmp_path):
    source, weights = outside
    model = load_model(source)
    model.graph.initializer.append(numpy_helper.from_array(weights["large"], "unused"))
    (tmp_path / "more").mkdir()
    slim_model(save_model(model, tmp_path / "more", threshold=0), cases, PARAMS, tmp_path / "out")
    assert (tmp_path / "out" / EXTERNAL_DATA).read_bytes() == weights["large"].tobytes()


def test_the_two_models_are_not_in_memory_together(scaled, cases, monkeypatch):
    alive: weakref.WeakSet[onnxruntime.InferenceSession] = weakref.WeakSet()
    most = []

    def opened(path):
        session = open_session(path)
        alive.add(session)
        most.append(len(alive))
        return session

    monkeypatch.setattr("onnx_release.export.slim.open_session", opened)
    check_same_answers(scaled("a.onnx", 1.0), scaled("b.onnx", 1.0), ArrayFile(cases), PARAMS)
    assert most == [1, 1]


def test_answers_within_the_bound_pass(scaled, cases):
    # At 3 the error is 3 * 2^-10 = 0.00293, and 1e-3 * 3 of it is allowed.
    check_same_answers(scaled("a.onnx", 1.0), scaled("b.onnx", 1 + 2**-10), ArrayFile(cases), PARAMS)


def test_a_changed_answer_is_named_with_output_case_and_needed_atol(scaled, cases):
    before, after = scaled("a.onnx", 1.0), scaled("b.onnx", 1.0, offset=0.25)
    with pytest.raises(GraphError) as caught:
        check_same_answers(before, after, ArrayFile(cases), PARAMS)
    # z is off by 0.25 everywhere; at the smallest |x|, 1, rtol takes 0.001 of that.
    assert "z in the case batch=1 needs atol 0.249 at rtol 0.001, slim.atol is 0.0001" in str(caught.value)
    assert "slim.skip_fusion_patterns" in str(caught.value)


def test_the_atol_that_the_message_names_passes(scaled, cases):
    before, after = scaled("a.onnx", 1.0), scaled("b.onnx", 1.0, offset=0.25)
    with pytest.raises(GraphError) as caught:
        check_same_answers(before, after, ArrayFile(cases), PARAMS)
    (needed,) = re.findall(r"needs atol (\S+)", str(caught.value))
    # The message has three digits.
    loosened = PARAMS.model_copy(update={"atol": float(needed) * 1.01})
    check_same_answers(before, after, ArrayFile(cases), loosened)


def test_nan_is_a_changed_answer(scaled, cases):
    with pytest.raises(GraphError, match="y in the case batch=1 needs atol nan"):
        check_same_answers(scaled("a.onnx", 1.0), scaled("b.onnx", np.nan), ArrayFile(cases), PARAMS)


def test_a_slimmed_model_that_answers_differently_is_not_kept(redundant, cases, tmp_path, monkeypatch):
    wrong = load_model(redundant)
    wrong.graph.node[3].op_type = "Sub"
    monkeypatch.setattr(onnxslim, "slim", lambda *_, **__: wrong)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.onnx").write_text("the earlier one")
    with pytest.raises(GraphError, match="slimming changed the answers: y in the case batch=1"):
        slim_model(redundant, cases, PARAMS, tmp_path / "out")
    assert (tmp_path / "out/model.onnx").read_text() == "the earlier one"


def test_onnxslim_giving_nothing_is_an_error(redundant, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxslim, "slim", lambda *_, **__: None)
    with pytest.raises(GraphError, match=r"onnxslim returned no model for .*model\.onnx.*slim\.skip_fusion_patterns"):
        slim_model(redundant, cases, PARAMS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_onnxslim_failing_is_an_error_that_says_why(redundant, cases, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyError("a pass")

    monkeypatch.setattr(onnxslim, "slim", fail)
    with pytest.raises(GraphError, match=r"onnxslim fails on .*KeyError\('a pass'\)"):
        slim_model(redundant, cases, PARAMS, tmp_path / "out")


@pytest.mark.parametrize(("patterns", "given"), [([], None), (["FusionGelu"], ["FusionGelu"])])
def test_the_fusions_to_skip_reach_onnxslim(redundant, cases, tmp_path, monkeypatch, patterns, given):
    seen = []

    def slim(source, skip_fusion_patterns):
        seen.append((source, skip_fusion_patterns))
        return load_model(redundant)

    monkeypatch.setattr(onnxslim, "slim", slim)
    slim_model(redundant, cases, PARAMS.model_copy(update={"skip_fusion_patterns": patterns}), tmp_path / "out")
    assert seen == [(str(redundant), given)]


def test_onnx_runtimes_log_severity_is_set_back(redundant, cases, tmp_path, monkeypatch):
    severities = []
    real = onnxruntime.set_default_logger_severity

    def remembered(value):
        severities.append(value)
        real(value)

    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", remembered)
    slim_model(redundant, cases, PARAMS, tmp_path / "out")
    assert severities[-1] == 2

    monkeypatch.setattr(onnxslim, "slim", lambda *_, **__: onnxruntime.set_default_logger_severity(4))
    with pytest.raises(GraphError):
        slim_model(redundant, cases, PARAMS, tmp_path / "out")
    assert severities[-2:] == [4, 2]
