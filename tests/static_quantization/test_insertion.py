"""Graphs of every kind are quantized: each is valid, runs, and is as close to float as 8 bits allow."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_release.graph.activations import session_of
from onnx_release.graph.graph import producers
from onnx_release.graph.targets import TARGETS
from onnx_release.measure.numerics import OutputError
from onnx_release.static_quantization.fusion import count_fused, optimized_graph
from onnx_release.static_quantization.qdq import clip_activations, insert_qdq

RANDOM = np.random.default_rng(0)
WIDE = (-4.0, 4.0)


def weight(*shape):
    return RANDOM.normal(size=shape).astype(np.float32) / 4


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs, outputs, name=f"{operator}_{outputs[0]}", **attributes)


def quantize(path, target="vnni", ranges=None, closer_than=25):
    """Check what `insert_qdq` makes of a graph with the input x, and return it."""
    model = onnx.load(path)
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    names = [name for one in model.graph.node for name in one.output]
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    wanted = session_of(model).run(None, {"x": x})
    if ranges is None:
        inner = onnx.shape_inference.infer_shapes(model)
        inner.graph.output.extend(value for value in inner.graph.value_info if value.name in names)
        found = dict(
            zip([value.name for value in inner.graph.output], session_of(inner).run(None, {"x": x}), strict=True)
        )
        arrays = {name: array for name, array in ({"x": x} | found).items() if array.dtype == np.float32 and array.size}
        finite = {name: array[np.isfinite(array)] for name, array in arrays.items()}
        ranges = {name: (min(0.0, float(a.min())), max(0.01, float(a.max()))) for name, a in finite.items()}
    quantized = insert_qdq(model, ranges, TARGETS[target], [])
    onnx.save(quantized, path.with_name("quantized.onnx"))
    onnx.checker.check_model(str(path.with_name("quantized.onnx")), full_check=True)
    for one, other in zip(wanted, session_of(quantized).run(None, {"x": x}), strict=True):
        error = OutputError()
        error.add(one, other)
        assert error.sqnr_db > closer_than
    return quantized


@pytest.mark.parametrize("bias", [[], ["b1"], ["b11"], ["b5"], ["b15"]])
@pytest.mark.parametrize("target", ["vnni", "tensorrt"])
def test_a_gemm_takes_a_bias_of_one_element_or_of_one_for_each_output(save_graph, tmp_path, bias, target):
    nodes = [node("Gemm", ["x", "w", *bias], ["y"])]
    biases = {"b1": weight(1), "b11": weight(1, 1), "b5": weight(5), "b15": weight(1, 5)}
    quantized = quantize(save_graph(nodes, [("x", [3, 8])], [("y", [3, 5])], {"w": weight(8, 5), **biases}), target)
    assert "QuantizeLinear" in [one.op_type for one in quantized.graph.node]


def test_a_weight_of_three_axes_has_one_scale_and_runs_on_integers(save_graph, tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    quantize(save_graph(nodes, [("x", [2, 4, 7, 16])], [("y", [2, 4, 7, 12])], {"w": weight(4, 16, 12)}))
    found = count_fused(tmp_path / "quantized.onnx")
    assert (found.quantized_nodes, found.unfused_nodes) == (1, 0)


def test_a_weight_that_an_embedding_takes_too_stays_float_there(save_graph, tmp_path):
    nodes = [
        node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
        node("Gather", ["w", "i"], ["e"]),
        node("Gemm", ["e", "w"], ["y"], transB=1),
    ]
    quantized = quantize(save_graph(nodes, [("x", [3, 8])], [("y", [3, 9]), ("e", [3, 6])], {"w": weight(9, 6)}))
    assert next(one for one in quantized.graph.node if one.op_type == "Gather").input[0] == "w"


@pytest.mark.parametrize("target", ["vnni", "tensorrt"])
def test_a_weight_that_two_layers_take_along_different_axes_is_quantized_for_each(save_graph, tmp_path, target):
    """As of an autoencoder whose decoder has the encoder's weights, transposed."""
    nodes = [
        node("Gemm", ["x", "w", "b"], ["z"], transB=1),
        node("MatMul", ["z", "w"], ["m"]),
        node("Gemm", ["m", "w"], ["y"], transB=1),
    ]
    weights = {"w": weight(6, 8) * np.arange(1, 9, dtype=np.float32), "b": weight(6)}
    quantized = quantize(save_graph(nodes, [("x", [3, 8])], [("y", [3, 6])], weights), target)
    makers = producers(quantized)
    taken = [makers[one.input[1]] for one in quantized.graph.node if one.op_type in ("Gemm", "MatMul")]
    assert [one.attribute[0].i for one in taken] == [0, 1, 0]
    assert taken[0] == taken[2]  # the same copy


@pytest.mark.parametrize("target", ["vnni", "tensorrt"])
def test_a_value_or_weight_may_have_the_name_of_a_scale(save_graph, tmp_path, target):
    """As the inputs `image` and `image_scale` of a detector have."""
    nodes = [
        node("Relu", ["x"], ["x_scale"]),
        node("Gemm", ["x", "w", "b"], ["m"]),
        node("Gemm", ["m", "w_scale", "b"], ["n"]),
        node("Mul", ["n", "x_scale"], ["b_quantized"]),
        node("Gemm", ["b_quantized", "w_zero_point", "b"], ["y"]),
    ]
    weights = {"w": weight(8, 8), "w_scale": weight(8, 8), "w_zero_point": weight(8, 8), "b": weight(8)}
    quantize(save_graph(nodes, [("x", [3, 8])], [("y", [3, 8])], weights), target)


def test_a_value_may_have_the_name_of_a_bound_of_its_range(save_graph, tmp_path):
    nodes = [node("Relu", ["x"], ["x_low"]), node("Gemm", ["x", "w"], ["m"]), node("Mul", ["m", "x_low"], ["y"])]
    path = save_graph(nodes, [("x", [3, 8])], [("y", [3, 8])], {"w": weight(8, 8)})
    ranges = dict.fromkeys(("x", "x_low", "m", "y"), (-9.0, 9.0))
    model, x = onnx.load(path), np.ones((3, 8), np.float32)
    clipped = clip_activations(model, quantize(path, ranges=ranges, closer_than=15), ranges)
    np.testing.assert_allclose(session_of(clipped).run(None, {"x": x}), session_of(model).run(None, {"x": x}))


def test_a_mask_of_infinity_and_one_of_the_least_float_stay_in_float(save_graph, tmp_path):
    masks = {"inf": np.array([0, -np.inf, 0, 0], np.float32), "least": np.array([0, 0, -3.4e38, 0], np.float32)}
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Add", ["m", "inf"], ["a"]),
        node("Add", ["a", "least"], ["c"]),
        node("Softmax", ["c"], ["y"]),
    ]
    quantized = quantize(save_graph(nodes, [("x", [3, 4])], [("y", [3, 4])], {"w": weight(4, 4), **masks}))
    assert [one.input[1] for one in quantized.graph.node if one.op_type == "Add"] == ["inf", "least"]


def test_a_value_without_a_range_leaves_its_node_in_float(save_graph, tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Sigmoid", ["m"], ["s"]), node("MatMul", ["s", "w"], ["y"])]
    quantized = quantize(
        save_graph(nodes, [("x", [3, 4])], [("y", [3, 4])], {"w": weight(4, 4)}), ranges={"x": WIDE, "s": (0.0, 1.0)}
    )
    assert producers(quantized)["s"].input[0] == "m"


def test_a_body_still_takes_what_it_captured(save_graph, tmp_path):
    """The value is made by a Conv, also an output of the graph, and taken inside."""
    value = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    then = helper.make_graph([node("Relu", ["c"], ["t"])], "then", [], [value])
    other = helper.make_graph([node("Neg", ["c"], ["t"])], "other", [], [value])
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("ReduceMax", ["x"], ["r"], keepdims=0),
        node("Greater", ["r", "zero"], ["b"]),
        node("If", ["b"], ["f"], then_branch=then, else_branch=other),
        node("Conv", ["f", "w"], ["y"]),
    ]
    weights = {"w": weight(3, 3, 1, 1), "zero": np.array(0, np.float32)}
    outputs = [("y", [1, 3, 4, 4]), ("c", [1, 3, 4, 4])]
    quantize(save_graph(nodes, [("x", [1, 3, 4, 4])], outputs, weights), closer_than=20)


def test_integer_outputs_and_empty_values_pass(save_graph, tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], ["y"]),
        node("ArgMax", ["y"], ["i"], axis=1),
        node("Slice", ["y", "zero", "zero", "one"], ["e"]),
        node("Add", ["e", "e"], ["z"]),
    ]
    weights = {"w": weight(4, 4), "zero": np.array([0]), "one": np.array([1])}
    model = onnx.load(
        save_graph(nodes, [("x", [3, 4])], [("y", [3, 4]), ("i", TensorProto.INT64, [3, 1]), ("z", [3, 0])], weights)
    )
    quantized = insert_qdq(model, {"x": WIDE, "y": WIDE}, TARGETS["vnni"], [])
    y, index, empty = session_of(quantized).run(None, {"x": np.ones((3, 4), np.float32)})
    assert index.dtype == np.int64 and empty.shape == (3, 0) and y.any()


def test_a_bias_that_int32_would_not_hold_widens_the_scale_of_its_weights(save_graph, tmp_path):
    tiny = weight(4, 3)
    tiny[:, 1] *= 1e-12
    nodes = [node("Gemm", ["x", "w", "b"], ["y"])]
    quantize(save_graph(nodes, [("x", [3, 4])], [("y", [3, 3])], {"w": tiny, "b": np.full(3, 5, np.float32)}))


def test_a_residual_that_floats_make_is_not_rounded_for_floats(save_graph, tmp_path):
    nodes = [
        node("Erf", ["x"], ["e"]),
        node("MatMul", ["e", "w"], ["m"]),
        node("Add", ["e", "m"], ["a"]),
        node("Erf", ["a"], ["y"]),
    ]
    model = onnx.load(save_graph(nodes, [("x", [3, 4])], [("y", [3, 4])], {"w": weight(4, 4)}))
    quantized = insert_qdq(model, {"x": WIDE, "e": WIDE, "m": WIDE, "a": WIDE}, TARGETS["vnni"], ["Add_a"])
    assert list(producers(quantized)["a"].input) == ["e", "m"]


def test_many_small_nodes_are_quantized_each_with_its_value(save_graph):
    """In onnxruntime's quantizer each value goes through all nodes again."""
    nodes = [node("Add" if i % 2 else "Mul", [f"v{i}" if i else "x", "k"], [f"v{i + 1}"]) for i in range(1000)]
    model = onnx.load(save_graph(nodes, [("x", [2])], [("v1000", [2])], {"k": np.array(1, np.float32)}))
    ranges = {name: WIDE for one in nodes for name in ("x", *one.output)}
    quantized = insert_qdq(model, ranges, TARGETS["vnni"], [])
    assert sum(one.op_type == "QuantizeLinear" for one in quantized.graph.node) == 1001


@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
def test_a_softmax_of_small_shares_is_not_zero_on_integers(save_graph, known):
    """Of 16 shares that are about equal, each is a sixteenth, and their scale would be a thousandth of a quarter."""
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Softmax", ["c"], ["s"], axis=1),
        node("Conv", ["s", "v"], ["y"]),
    ]
    # The weights of the second weigh bins, as in the boxes of YOLOv8.
    bins = np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1)
    weights = {"w": weight(16, 3, 1, 1) / 50, "v": bins}
    path = save_graph(nodes, [("x", [1, 3, 8, 8])], [("y", [1, 1, 8, 8])], weights)
    if known:
        onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), path)
    quantize(path)
    fused = optimized_graph(path.with_name("quantized.onnx"))
    assert "QLinearSoftmax" in [one.op_type for one in fused.graph.node]
