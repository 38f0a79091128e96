"""Weights of MatMul and Gemm become int8; what was touched is counted."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_release.core.errors import GraphError, ParameterError
from onnx_release.core.params import QuantizeDynamic
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
