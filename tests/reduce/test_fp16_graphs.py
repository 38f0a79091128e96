"""Graphs that onnxconverter-common alone makes invalid: each gives in float16 what it gives in float32."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_release.core.params import Fp16
from onnx_release.graph.graph import graphs
from onnx_release.reduce.fp16 import convert_to_fp16
from onnx_release.runtime.session import open_session
from tests.samples import save_samples

PARAMS = Fp16(block_operators=[], max_finite_val=65504)
X = np.array([[1.5, -0.25, 3, -2]], np.float32)
HALF = np.full(4, 0.5, np.float32)
FLOAT, FLOAT16, INT64, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


@pytest.fixture
def convert(save_graph, tmp_path):
    """Convert a graph of one input x [batch, 4], and check that it gives what the source gives on X."""

    def run(nodes, outputs=("y",), weights=None, change=None, block=(), apart=False):
        declared = [item if isinstance(item, tuple) else (item, ["batch", "n"]) for item in outputs]
        source = save_graph(nodes, [("x", ["batch", 4])], declared, weights)
        if change:
            model = onnx.load(source)
            change(model)
            onnx.save(model, source)
        samples = save_samples(tmp_path / "samples.npz", [X[0]])
        params = PARAMS.model_copy(update={"block_operators": list(block)})
        metrics = convert_to_fp16(source, samples, params, tmp_path / "fp16", apart)
        expected = open_session(source).run(None, {"x": X})
        found = open_session(tmp_path / "fp16/model.onnx").run(None, {"x": X})
        for one, other in zip(expected, found, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(other, one, rtol=2e-3, atol=2e-3)
        return metrics, onnx.load(tmp_path / "fp16/model.onnx")

    return run


def weights_of(model):
    return {tensor.name: numpy_helper.to_array(tensor) for graph in graphs(model.graph) for tensor in graph.initializer}


def body(nodes, inputs, outputs, weights=None):
    def declared(name, kind):
        return helper.make_tensor_value_info(name, kind, None if kind == FLOAT else [])

    taken, given = [[declared(*value) for value in group] for group in (inputs, outputs)]
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    return helper.make_graph(nodes, "body", taken, given, tensors)


def test_an_output_may_be_taken_inside_too(convert):
    nodes = [node("Relu", ["x"], ["a"]), node("Mul", ["a", "w"], ["b"]), node("Add", ["a", "b"], ["y"])]
    metrics, _ = convert(nodes, ["a", "y"], {"w": HALF})
    assert (metrics.fp16_nodes, metrics.float_nodes) == (3, 0)


def test_an_input_may_be_an_output(convert):
    convert([node("Mul", ["x", "w"], ["y"])], ["x", "y"], {"w": HALF})


@pytest.mark.parametrize(("operator", "second"), [("Max", "w"), ("CumSum", "axis")])
def test_an_output_may_be_made_by_an_operator_that_stays_in_float32(convert, operator, second):
    nodes = [node("Mul", ["x", "w"], ["a"]), node(operator, ["a", second], ["y"])]
    metrics, _ = convert(nodes, ["y"], {"w": HALF, "axis": np.array(1, np.int64)})
    assert (metrics.fp16_nodes, metrics.float_nodes) == (1, 1)


def test_integer_outputs_stay_as_they_are(convert):
    nodes = [node("TopK", ["x", "k"], ["y", "places"]), node("Greater", ["x", "w"], ["large"])]
    outputs = ["y", ("places", INT64, ["batch", 2]), ("large", BOOL, ["batch", 4])]
    convert(nodes, outputs, {"k": np.array([2], np.int64), "w": HALF})


def test_a_constant_of_kept_and_converted_nodes_gets_a_copy(convert):
    nodes = [node("Max", ["x", "w"], ["a"]), node("Mul", ["a", "w"], ["y"])]
    _, converted = convert(nodes, weights={"w": HALF})
    types = {name: str(array.dtype) for name, array in weights_of(converted).items()}
    assert types == {"w": "float16", "w_float32": "float32"}


def test_constants_that_are_nodes_are_converted(convert):
    nodes = [node("Constant", [], ["c"], value_float=0.5), node("Mul", ["x", "c"], ["y"])]
    metrics, _ = convert(nodes)
    assert metrics.fp16_nodes == 1


def test_an_infinite_mask_stays_infinite(convert):
    nodes = [
        node("Greater", ["x", "w"], ["m"]),
        node("Where", ["m", "x", "low"], ["a"]),
        node("Softmax", ["a"], ["y"], axis=-1),
    ]
    metrics, converted = convert(nodes, ["a", "y"], {"w": HALF, "low": np.array(-np.inf, np.float32)})
    assert weights_of(converted)["low"] == -np.inf
    assert metrics.blocked_nodes == 0


def test_infinity_times_what_underflows_stays_in_float32(convert):
    """1e-9 is 0 in float16, and 0 times infinity NaN."""
    nodes = [node("Mul", ["x", "tiny"], ["a"], name="shrink"), node("Mul", ["a", "inf"], ["y"], name="grow")]
    weights = {"tiny": np.array(1e-9, np.float32), "inf": np.array(np.inf, np.float32)}
    metrics, _ = convert(nodes, weights=weights)
    assert metrics.blocked == "grow"


def test_operators_without_float16_stay_in_float32(convert):
    """ONNX defines Celu in float32 only, and ONNX Runtime adds up in no scatter in float16."""
    nodes = [
        node("Celu", ["x"], ["a"]),
        node("ScatterElements", ["a", "i", "a"], ["b"], axis=1, reduction="add"),
        node("Relu", ["b"], ["y"]),
    ]
    metrics, _ = convert(nodes, weights={"i": np.array([[0, 0, 1, 3]], np.int64)})
    assert (metrics.fp16_nodes, metrics.float_nodes) == (1, 2)


def test_a_result_that_is_float32_by_an_attribute_stays_so(convert):
    nodes = [
        node("RandomNormalLike", ["x"], ["r"], dtype=FLOAT, scale=1e-6),
        node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
        node("Exp", ["d"], ["e"]),
        node("Cast", ["e"], ["f"], to=FLOAT),
        node("Add", ["f", "r"], ["y"]),
    ]
    convert(nodes)


def test_a_shape_is_filled_with_a_zero_of_the_right_type(convert):
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("ConstantOfShape", ["s"], ["z"]),
        node("Add", ["x", "z"], ["y"]),
    ]
    convert(nodes)


def test_an_lstm_may_leave_out_inputs_and_outputs(convert):
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((1, 8, 4)).astype(np.float32),
        "r": random.standard_normal((1, 8, 2)).astype(np.float32),
        "h": np.zeros((1, 1, 2), np.float32),
        "axis": np.array([0], np.int64),
    }
    nodes = [
        node("Unsqueeze", ["x", "axis"], ["a"]),
        node("LSTM", ["a", "w", "r", "", "", "h"], ["", "y", ""], hidden_size=2),
    ]
    metrics, _ = convert(nodes, [("y", [1, "batch", 2])], weights)
    assert metrics.float_nodes == 0


def test_the_branches_of_an_if_take_values_and_constants_from_outside(convert):
    """Max stays in float32; both branches call a value and a constant alike."""

    def branch(operator):
        nodes = [node(operator, ["a", "w"], ["t"]), node("Mul", ["t", "c"], ["b"])]
        return body(nodes, [], [("b", FLOAT)], {"c": HALF})

    nodes = [
        node("Relu", ["x"], ["a"]),
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Greater", ["m", "zero"], ["c"]),
        node("If", ["c"], ["i"], then_branch=branch("Max"), else_branch=branch("Add")),
        node("Max", ["i", "w"], ["y"]),
    ]
    metrics, _ = convert(nodes, weights={"w": HALF, "zero": np.array(0, np.float32)})
    assert metrics.float_nodes == 2


LOOP = {"n": np.array(3, np.int64), "w": HALF}


def loop():
    """Three times y = max(y * a, w), where a is an inner value and w a constant."""
    inside = body(
        [
            node("Mul", ["state", "a"], ["t"]),
            node("Max", ["t", "w"], ["next"]),
            node("Identity", ["more"], ["again"]),
        ],
        [("i", INT64), ("more", BOOL), ("state", FLOAT)],
        [("again", BOOL), ("next", FLOAT)],
    )
    return [
        node("Relu", ["x"], ["a"]),
        node("Loop", ["n", "", "x"], ["l"], body=inside),
        node("Add", ["l", "a"], ["y"]),
    ]


def test_a_loop_is_converted_with_what_it_takes_from_outside(convert):
    metrics, _ = convert(loop(), weights=LOOP)
    assert (metrics.fp16_nodes, metrics.float_nodes) == (4, 1)


def test_a_loop_that_stays_in_float32_takes_float32_from_outside(convert):
    _, converted = convert(loop(), weights=LOOP, block=["Loop"])
    assert weights_of(converted)["w"].dtype == np.float32


def test_a_loop_over_a_sequence_stays_in_float32(convert):
    sequence = helper.make_tensor_sequence_value_info
    inside = body([], [("i", INT64), ("more", BOOL)], [("again", BOOL)])
    inside.input.append(sequence("before", FLOAT, None))
    inside.output.append(sequence("after", FLOAT, None))
    inside.node.extend(
        [
            node("Identity", ["more"], ["again"]),
            node("Mul", ["a", "w"], ["t"]),
            node("SequenceInsert", ["before", "t"], ["after"]),
        ]
    )
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("SequenceEmpty", [], ["empty"]),
        node("Loop", ["n", "", "empty"], ["all"], body=inside),
        node("ConcatFromSequence", ["all"], ["joined"], axis=1),
        node("Relu", ["joined"], ["y"]),
    ]
    metrics, _ = convert(nodes, weights=LOOP)
    assert metrics.fp16_nodes == 2


def test_functions_are_converted_inside(convert):
    def add_function(model):
        inside = [node("Constant", [], ["c"], value_float=0.5), node("Mul", ["a", "c"], ["b"])]
        opset = helper.make_opsetid("", 18)
        model.functions.append(helper.make_function("own", "Halve", ["a"], ["b"], inside, [opset]))

    metrics, _ = convert([node("Halve", ["x"], ["y"], domain="own")], change=add_function)
    assert metrics.fp16_nodes == 1


def test_a_value_that_is_declared_twice_keeps_the_right_type(convert):
    def declare_twice(model):
        for _ in range(2):
            model.graph.value_info.append(helper.make_tensor_value_info("a", FLOAT, ["batch", 4]))

    nodes = [node("Max", ["x", "w"], ["a"]), node("Mul", ["a", "w"], ["y"])]
    _, converted = convert(nodes, weights={"w": HALF}, change=declare_twice)
    declared = [value.name for value in converted.graph.value_info]
    assert len(declared) == len(set(declared))
    assert {"a"} <= set(declared)  # ONNX Runtime's NCHWc transformer crashes on a graph without


def test_weights_in_another_file_give_the_same_bytes(convert, save_graph, tmp_path):
    weights = {"w": np.linspace(-2, 2, 4, dtype=np.float32)}
    convert([node("Mul", ["x", "w"], ["y"])], weights=weights)
    inside = (tmp_path / "fp16/model.onnx").read_bytes()

    def move_out(model):
        onnx.external_data_helper.convert_model_to_external_data(model, location="w.data", size_threshold=0)

    convert([node("Mul", ["x", "w"], ["y"])], weights=weights, change=move_out)
    assert (tmp_path / "w.data").stat().st_size == 16
    assert (tmp_path / "fp16/model.onnx").read_bytes() == inside


def test_each_try_may_run_in_a_process_of_its_own(convert):
    convert([node("Mul", ["x", "w"], ["y"])], weights={"w": HALF}, apart=True)
