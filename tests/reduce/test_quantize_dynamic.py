"""Weights of MatMul and Gemm become int8; what was touched is counted."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_release.core.errors import GraphError, ParameterError
from onnx_release.core.params import QuantizeDynamic
from onnx_release.graph.graph import save_model
from onnx_release.reduce.quantize_dynamic import quantize_dynamically
from onnx_release.runtime.session import open_session
from tests.cpu import SATURATES

PARAMS = QuantizeDynamic(operators=["MatMul", "Gemm"])


@pytest.fixture
def model(save_graph):
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(8, 8)).astype(np.float32), "v": random.normal(size=(8, 8)).astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "v"], ["y"], name="second"),
    ]
    return save_graph(nodes, [("x", ["batch", 8])], [("y", ["batch", 8])], weights)


@pytest.mark.parametrize("reduce_range", [False, True])
def test_the_answers_stay_close_and_the_nodes_are_counted(model, tmp_path, reduce_range):
    metrics = quantize_dynamically(model, PARAMS, reduce_range, tmp_path / "out")
    assert (metrics.quantized_nodes, metrics.float_nodes) == (2, 1)
    assert metrics.reduce_range == reduce_range
    integers = [onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "out/model.onnx").graph.initializer]
    largest = max(np.abs(array.astype(int)).max() for array in integers if array.dtype == np.int8)
    assert (largest <= 64) == reduce_range
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    expected, found = (open_session(path).run(None, {"x": x})[0] for path in (model, tmp_path / "out/model.onnx"))
    if reduce_range or not SATURATES:
        assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def quantized_outputs(source, folder, feeds, **options):
    """The metrics, the answers of the float model, and those of the quantized one."""
    metrics = quantize_dynamically(source, PARAMS, SATURATES, folder, **options)
    sessions = [open_session(path) for path in (source, folder / "model.onnx")]
    return metrics, *(session.run(None, feeds)[0] for session in sessions)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 8, 3), (4, 8, 3), (2, 1, 8, 3)])
def test_a_weight_of_several_matrices_has_scales_for_each(save_graph, tmp_path, shape):
    weight = normal(*shape) * np.array([1, 10, 100], np.float32)
    given, made = ["a", "b", 8], ["p", "a", "b", 3][-max(len(shape), 3) :]
    source = save_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")], [("x", given)], [("y", made)], {"w": weight}
    )
    metrics, expected, found = quantized_outputs(source, tmp_path / "out", {"x": normal(4, 5, 8)})
    assert metrics.quantized_nodes == 1 and found.shape == expected.shape
    assert (np.abs(found - expected).max(axis=(0, 1)) < 0.05 * np.abs(expected).max(axis=(0, 1))).all()


@pytest.mark.parametrize("bias", [(1,), (3,), (1, 3), ()])
@pytest.mark.parametrize("options", [{}, {"transB": 1}, {"transA": 1, "alpha": 0.5, "beta": 2.0}])
def test_a_gemm_of_any_kind(save_graph, tmp_path, bias, options):
    weights = {"w": normal(3, 8) if options.get("transB") else normal(8, 3), "b": normal(*bias, seed=1) * 5}
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="g", **options)
    source = save_graph([node], [("x", ["n", "m"])], [("y", ["k", 3])], weights)
    x = normal(8, 5) if options.get("transA") else normal(5, 8)
    metrics, expected, found = quantized_outputs(source, tmp_path / "out", {"x": x})
    assert metrics.quantized_nodes == 1
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def test_a_shared_weight_serves_all_that_take_it(save_graph, tmp_path):
    """An embedding, the product with its transposed table, and a Gemm that transposes it itself."""
    nodes = [
        helper.make_node("Gather", ["w", "i"], ["e"], name="gather"),
        helper.make_node("MatMul", ["e", "w"], ["a"], name="first"),
        helper.make_node("Gemm", ["a", "w"], ["b"], name="second", transB=1),
        helper.make_node("Transpose", ["w"], ["t"], name="transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["b", "t"], ["y"], name="third"),
    ]
    source = save_graph(nodes, [("i", onnx.TensorProto.INT64, [4])], [("y", [4, 8])], {"w": normal(8, 8)})
    metrics, expected, found = quantized_outputs(source, tmp_path / "out", {"i": np.arange(4)})
    assert (metrics.quantized_nodes, metrics.float_nodes) == (2, 3)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_excluded_nodes_and_weights_that_are_not_finite_stay_in_float(model, save_graph, tmp_path):
    metrics, _, _ = quantized_outputs(model, tmp_path / "out", {"x": normal(2, 8)}, exclude={"first"})
    assert metrics.quantized_nodes == 1
    assert {"first", "second_quant"} <= {node.name for node in onnx.load(tmp_path / "out/model.onnx").graph.node}
    weight = np.full((8, 8), np.inf, np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    infinite = save_graph(nodes, [("x", ["n", 8])], [("y", ["n", 8])], {"w": weight})
    assert quantize_dynamically(infinite, PARAMS, False, tmp_path / "again").quantized_nodes == 0


def test_values_that_a_branch_captures_are_kept(save_graph, tmp_path):
    """Both branches take a weight of the graph around them, and `r`, which is quantized for a product there."""
    value = helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["n", 8])
    branch = helper.make_graph([helper.make_node("MatMul", ["r", "w"], ["z"], name="inner")], "branch", [], [value])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w"], ["a"], name="outer"),
        helper.make_node("If", ["c"], ["b"], name="if", then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["a", "b"], ["y"], name="add"),
    ]
    inputs = [("x", ["n", 8]), ("c", onnx.TensorProto.BOOL, [])]
    source = save_graph(nodes, inputs, [("y", ["n", 8])], {"w": normal(8, 8)})
    metrics, expected, found = quantized_outputs(source, tmp_path / "out", {"x": normal(2, 8), "c": np.array(True)})
    assert metrics.quantized_nodes == 1
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_weights_in_another_file_are_read_one_at_a_time(save_graph, tmp_path):
    nodes = [
        helper.make_node("Add", ["x", "v"], ["a"], name="add"),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="m"),
    ]
    weights = {"v": normal(512), "w": normal(512, 512)}
    model = onnx.load(save_graph(nodes, [("x", ["n", 512])], [("y", ["n", 512])], weights))
    (tmp_path / "source").mkdir()
    source = save_model(model, tmp_path / "source", threshold=0)
    metrics, expected, found = quantized_outputs(source, tmp_path / "out", {"x": normal(2, 512)})
    assert metrics.quantized_nodes == 1
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_other_operators_are_left_to_onnxruntimes_quantizer(save_graph, tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["a"], name="conv"),
        helper.make_node("Flatten", ["a"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="m"),
    ]
    weights = {"k": normal(2, 3, 1, 1), "w": normal(8, 4)}
    source = save_graph(nodes, [("x", ["n", 3, 2, 2])], [("y", ["n", 4])], weights)
    params = QuantizeDynamic(operators=["Conv", "MatMul"])
    assert quantize_dynamically(source, params, False, tmp_path / "out").quantized_nodes == 2


def test_nothing_to_quantize_is_said_plainly(model, save_graph, tmp_path):
    relu = save_graph([helper.make_node("Relu", ["x"], ["y"])], [("x", [1])], [("y", [1])])
    assert quantize_dynamically(relu, PARAMS, False, tmp_path / "out").quantized_nodes == 0


def test_an_operator_that_cannot_be_quantized_is_named(model, tmp_path):
    with pytest.raises(ParameterError, match="Relu cannot be quantized dynamically; MatMul"):
        quantize_dynamically(model, QuantizeDynamic(operators=["Relu"]), False, tmp_path / "out")


def test_a_quantized_model_is_refused(model, tmp_path):
    quantize_dynamically(model, PARAMS, False, tmp_path / "out")
    with pytest.raises(GraphError, match="already quantized"):
        quantize_dynamically(tmp_path / "out/model.onnx", PARAMS, False, tmp_path / "again")
