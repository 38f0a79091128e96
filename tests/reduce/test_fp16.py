"""What overflows in float16 stays in float32, is named, and no Cast undoes another."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_release.core.errors import DataError, GraphError
from onnx_release.core.params import Fp16
from onnx_release.reduce.fp16 import Trial, check_and_run, convert_to_fp16
from onnx_release.reduce.fp16_passes.overflow import find_not_finite
from onnx_release.reduce.runs import corner_runs
from onnx_release.runtime.session import open_session
from tests.samples import save_samples

PARAMS = Fp16(block_operators=[], max_finite_val=65504)


def convert(model, samples, tmp_path, **changes):
    metrics = convert_to_fp16(model, samples, PARAMS.model_copy(update=changes), tmp_path / "fp16")
    return metrics, onnx.load(tmp_path / "fp16/model.onnx")


def ones(tmp_path, *shape, value=1.0):
    return save_samples(tmp_path / "samples.npz", [np.full(shape, value, np.float32)])


def run(tmp_path, x):
    return open_session(tmp_path / "fp16/model.onnx").run(None, {"x": x})[0]


def cascades(model):
    makers = {name: node for node in model.graph.node for name in node.output}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    return [node for node in casts if node.input[0] in makers and makers[node.input[0]].op_type == "Cast"]


def test_a_graph_becomes_float16_with_its_inputs_and_outputs_as_they_are(save_graph, tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    model = save_graph(nodes, [("x", ["batch", 2])], [("y", ["batch", 2])], {"w": np.eye(2, dtype=np.float32)})
    metrics, converted = convert(model, ones(tmp_path, 2), tmp_path)
    assert (metrics.fp16_nodes, metrics.float_nodes, metrics.casts) == (2, 0, 2)
    assert metrics.blocked_nodes == 0 and metrics.clamped_weights == 0
    assert converted.graph.initializer[0].data_type == TensorProto.FLOAT16
    found = run(tmp_path, np.array([[1.5, -2]], np.float32))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[1.5, 0]])


def test_a_value_beyond_float16_keeps_both_sides_in_float32(save_graph, tmp_path):
    """1,000 * 1,000 is beyond 65,504, and a tenth of a thousandth of it is not."""
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["a"], name="grow"),
        helper.make_node("Mul", ["a", "small"], ["b"], name="shrink"),
        helper.make_node("Relu", ["b"], ["y"], name="last"),
    ]
    weights = {"big": np.full(1, 1000, np.float32), "small": np.full(1, 1e-4, np.float32)}
    model = save_graph(nodes, [("x", ["batch", 2])], [("y", ["batch", 2])], weights)
    metrics, converted = convert(model, ones(tmp_path, 2, value=1000.0), tmp_path)
    assert metrics.blocked == "grow, shrink" and metrics.blocked_nodes == 2
    assert (metrics.fp16_nodes, metrics.float_nodes) == (1, 2)
    np.testing.assert_allclose(run(tmp_path, np.full((1, 2), 1000, np.float32)), 100, rtol=1e-3)
    assert not cascades(converted)


def test_a_mean_whose_sum_overflows_is_blocked(save_graph, tmp_path):
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], name="mean", keepdims=1)]
    model = save_graph(nodes, [("x", ["batch", 1000])], [("y", ["?", "?"])])
    metrics, _ = convert(model, ones(tmp_path, 1000, value=100.0), tmp_path)
    assert metrics.blocked == "mean"


def test_an_overflow_that_only_float16_makes_is_found_by_running_it(save_graph, tmp_path):
    """1.0001 is 1 in float16, so the difference is 0 there, and its reciprocal infinite."""
    nodes = [
        helper.make_node("Sub", ["x", "one"], ["a"], name="difference"),
        helper.make_node("Reciprocal", ["a"], ["y"], name="divide"),
    ]
    weights = {"one": np.ones(1, np.float32)}
    model = save_graph(nodes, [("x", ["batch", 2])], [("y", ["batch", 2])], weights)
    metrics, _ = convert(model, ones(tmp_path, 2, value=1.0001), tmp_path)
    assert metrics.blocked == "divide"


def test_infinity_in_an_input_and_in_the_output_stays_where_it_is(save_graph, tmp_path):
    nodes = [helper.make_node("Mul", ["x", "w"], ["a"]), helper.make_node("Relu", ["x"], ["r"])]
    nodes += [helper.make_node("Add", ["a", "r"], ["y"])]
    weights = {"w": np.full(1, 2, np.float32)}
    model = save_graph(nodes, [("x", ["batch", 2])], [("y", ["batch", 2])], weights)
    masked = np.array([-np.inf, 1], np.float32)
    metrics, _ = convert(model, save_samples(tmp_path / "s.npz", [masked]), tmp_path)
    assert (metrics.fp16_nodes, metrics.blocked_nodes) == (3, 0)
    assert run(tmp_path, masked[None]).tolist() == [[-np.inf, 3]]


def test_infinity_that_float16_does_not_have_keeps_what_loses_it_in_float32(save_graph, tmp_path):
    """11 / 11 is 1 in float32, whose logarithm's argument is 0; in float16 it is less than 1."""
    nodes = [
        helper.make_node("Mul", ["x", "eleventh"], ["a"], name="divide"),
        helper.make_node("Sub", ["one", "a"], ["b"], name="difference"),
        helper.make_node("Log", ["b"], ["y"], name="log"),
    ]
    weights = {"eleventh": np.full(1, 1 / 11, np.float32), "one": np.ones(1, np.float32)}
    model = save_graph(nodes, [("x", ["batch", 2])], [("y", ["batch", 2])], weights)
    x = np.array([11, 5.5], np.float32)
    convert(model, save_samples(tmp_path / "s.npz", [x]), tmp_path)
    assert run(tmp_path, x[None])[0] == pytest.approx([-np.inf, np.log(0.5)], rel=1e-3)


def test_infinity_that_is_lost_inside_hides_no_overflow_in_another_sample(save_graph, tmp_path):
    """As above, but a Relu hides it; 1.0001 is 1 in float16, and the reciprocal of the difference infinite."""
    nodes = [
        helper.make_node("Mul", ["x", "eleventh"], ["a"], name="divide"),
        helper.make_node("Sub", ["one", "a"], ["b"], name="difference"),
        helper.make_node("Log", ["b"], ["c"], name="log"),
        helper.make_node("Relu", ["c"], ["y"], name="hide"),
        helper.make_node("Sub", ["x", "one"], ["d"], name="beyond"),
        helper.make_node("Reciprocal", ["d"], ["z"], name="reciprocal"),
    ]
    weights = {"eleventh": np.full(1, 1 / 11, np.float32), "one": np.ones(1, np.float32)}
    model = save_graph(nodes, [("x", ["batch", 2])], [("y", ["batch", 2]), ("z", ["batch", 2])], weights)
    arrays = [np.array(x, np.float32) for x in ([11, 5.5], [1.0001, 5.5])]
    metrics, _ = convert(model, save_samples(tmp_path / "s.npz", arrays), tmp_path)
    assert "reciprocal" in metrics.blocked


def test_infinity_that_has_the_other_sign_in_float16_keeps_what_turns_it_in_float32(save_graph, tmp_path):
    """0.9999 is 1 in float16, and 11 / 11 less than 1, so the difference is above 0 there and below 0 in float32."""
    nodes = [
        helper.make_node("Mul", ["x", "eleventh"], ["a"], name="divide"),
        helper.make_node("Sub", ["almost", "a"], ["b"], name="difference"),
        helper.make_node("Div", ["b", "zero"], ["y"], name="last"),
    ]
    values = {"eleventh": 1 / 11, "almost": 0.9999, "zero": 0}
    weights = {name: np.full(1, value, np.float32) for name, value in values.items()}
    model = save_graph(nodes, [("x", ["batch", 2])], [("y", ["batch", 2])], weights)
    convert(model, ones(tmp_path, 2, value=11.0), tmp_path)
    assert run(tmp_path, np.full((1, 2), 11, np.float32)).tolist() == [[-np.inf, -np.inf]]


@pytest.mark.parametrize(
    ("x", "float32", "message"),
    [
        ([0, 1], [0, 0], "gives NaN or infinity in y, only in float16$"),
        ([1, 1], [-np.inf, 0], "gives NaN or infinity in y in float32, and none in float16$"),
        ([1, 0], [-np.inf, 0], "gives NaN or infinity in y, other than in float32$"),
        ([0, 1], [np.inf, 0], "gives NaN or infinity in y, other than in float32$"),
    ],
    ids=["only in float16", "only in float32", "elsewhere", "of the other sign"],
)
def test_a_written_file_with_other_infinity_than_float32_is_refused(x, float32, message, save_graph, tmp_path):
    model = save_graph([helper.make_node("Log", ["x"], ["y"])], [("x", ["batch", 2])], [("y", ["batch", 2])])
    wanted = find_not_finite({"y": np.array([float32], np.float32)})
    with pytest.raises(GraphError, match=f"calibration sample 7 {message}"):
        check_and_run(model, [Trial(7, {"x": np.array([x], np.float32)}, wanted)])


def test_casts_of_the_source_survive_and_none_cancels_another(save_graph, tmp_path):
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "x"], ["y"]),
    ]
    model = save_graph(nodes, [("x", ["batch", 2])], [("y", ["batch", 2])])
    _, converted = convert(model, ones(tmp_path, 2), tmp_path)
    np.testing.assert_array_equal(run(tmp_path, np.array([[2.5, -3.5]], np.float32)), [[5, 10.5]])
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16}
    for node in cascades(converted):
        assert node.attribute[0].i not in floats or node.input[0] == "i"


def test_blocked_operators_stay_in_float32(save_graph, tmp_path):
    nodes = [helper.make_node("Exp", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    model = save_graph(nodes, [("x", ["batch", 2])], [("y", ["batch", 2])])
    metrics, _ = convert(model, ones(tmp_path, 2), tmp_path, block_operators=["Exp"])
    assert (metrics.fp16_nodes, metrics.float_nodes, metrics.blocked_nodes) == (1, 1, 0)


def test_clamped_weights_are_counted(save_graph, tmp_path):
    weights = {"w": np.array([1, 2e5], np.float32)}
    model = save_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])], [("x", ["batch", 2])], [("y", ["batch", 2])], weights
    )
    samples = ones(tmp_path, 2, value=0.1)
    assert convert(model, samples, tmp_path)[0].clamped_weights == 1
    assert convert(model, samples, tmp_path, max_finite_val=0.5)[0].clamped_weights == 2


def test_what_cannot_be_converted_is_an_error(save_graph, tmp_path):
    half = {"w": np.ones(2, np.float16)}
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["h", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    model = save_graph(nodes, [("x", ["batch", 2])], [("y", ["batch", 2])], half)
    with pytest.raises(GraphError, match="already in float16"):
        convert(model, ones(tmp_path, 2), tmp_path)
    relu = save_graph([helper.make_node("Relu", ["x"], ["y"])], [("x", ["batch", 2])], [("y", ["batch", 2])])
    with pytest.raises(DataError, match="no sample to check float16 on"):
        convert(relu, save_samples(tmp_path / "none.npz", []), tmp_path)
    log = save_graph([helper.make_node("Log", ["x"], ["y"])], [("x", ["batch", 2])], [("y", ["batch", 2])])
    with pytest.raises(DataError, match="calibration sample 0 gives NaN in y, even in float32"):
        convert(log, ones(tmp_path, 2, value=-1.0), tmp_path)
    assert not (tmp_path / "fp16").exists()


def test_a_float32_graph_that_takes_and_returns_float16_is_converted(save_graph, tmp_path):
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], ["y"], to=TensorProto.FLOAT),
    ]
    weights = {"w": np.full(2, 3, np.float32)}
    model = save_graph(nodes, [("x", ["batch", 2])], [("y", ["batch", 2])], weights)
    metrics, _ = convert(model, ones(tmp_path, 2), tmp_path)
    assert metrics.fp16_nodes
    np.testing.assert_array_equal(run(tmp_path, np.array([[2, 5]], np.float32)), [[6, 15]])


def test_a_sum_that_only_a_longer_input_takes_beyond_float16_stays_in_float32(save_graph, make_spec, tmp_path):
    """50 times 6,000 is beyond 65,504; 50 times 8, as of the only sample, is not. A mean may sum as far."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "time"], ["a"], name="sum", keepdims=0),
        helper.make_node("ReduceMean", ["x", "time"], ["m"], name="mean", keepdims=0),
        helper.make_node("Mul", ["a", "small"], ["b"], name="shrink"),
        helper.make_node("Add", ["b", "m"], ["y"], name="last"),
    ]
    weights = {"time": np.array([1]), "small": np.full(1, 1e-4, np.float32)}
    model = save_graph(nodes, [("x", ["batch", "time", 2])], [("y", ["batch", 2])], weights)
    spec = make_spec({"x": ["batch", "time", 2]}, {"y": ["batch", 2]}, batch=(1, 2, 2), time=(2, 6000, 8))
    samples = ones(tmp_path, 8, 2, value=50.0)
    corners = corner_runs(spec, samples, draws=1, times_larger=math.inf)
    assert convert_to_fp16(model, samples, PARAMS, tmp_path / "short").blocked == ""
    found = convert_to_fp16(model, samples, PARAMS, tmp_path / "fp16", corners=corners)
    assert found.blocked == "sum, mean, shrink, last"
