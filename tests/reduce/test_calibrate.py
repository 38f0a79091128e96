"""Ranges against values worked out by hand or by numpy, and what bad samples end in."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_release.core.errors import DataError, GraphError
from onnx_release.core.files import read_json
from onnx_release.core.params import Calibrate
from onnx_release.graph.activations import float_values
from onnx_release.graph.graph import external_files, save_model
from onnx_release.graph.layers import weighted_layers
from onnx_release.reduce.calibrate import calibrate, find_ranges
from onnx_release.reduce.fold_weights import fold_weights, name_nodes
from onnx_release.reduce.histograms import Observed, count, observe_values
from onnx_release.reduce.observe import observe, split_by_size, values_to_observe, within_reach
from onnx_release.reduce.ranges import (
    choose_range,
    clipping_loss,
    cover_cases,
    entropy_range,
    include_zero,
    mse_range,
    narrowest_factor,
    percentile_range,
)
from onnx_release.reduce.runs import sample_runs
from tests.samples import save_samples

PARAMS = Calibrate(method="minmax", percentile=99.99, bins=2048, chunk=2)


@pytest.fixture
def relu(save_graph):
    return save_graph([helper.make_node("Relu", ["x"], ["y"])], [("x", ["batch", 4])], [("y", ["batch", 4])])


@pytest.fixture
def spec(make_spec):
    return make_spec({"x": ["batch", 4]}, {"y": ["batch", 4]}, batch=(1, 4, 2))


def random_samples(tmp_path, count=7, size=4):
    random = np.random.default_rng(0)
    return save_samples(tmp_path / "samples.npz", [random.normal(size=size).astype(np.float32) for _ in range(count)])


def ranges(model, samples, **changes):
    return find_ranges(onnx.load(model), samples, PARAMS.model_copy(update=changes))[0]


def test_minmax_is_the_least_and_the_greatest_value_of_all_samples(relu, tmp_path):
    samples = save_samples(tmp_path / "s.npz", [np.array(x, np.float32) for x in ([1, -2, 0, 3], [-5, 0, 1, 2])])
    assert ranges(relu, samples) == {"x": (-5, 3), "y": (0, 3)}


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_chunk_changes_no_range(relu, tmp_path, method, chunk):
    samples = random_samples(tmp_path)
    assert ranges(relu, samples, method=method, chunk=chunk) == ranges(relu, samples, method=method)


def test_the_percentile_leaves_half_of_the_rest_out_at_either_end():
    counts = np.array([1, 0, 0, 98, 0, 0, 0, 1])
    edges = np.linspace(-4, 4, 9)
    assert percentile_range(counts, edges, 100) == (-4, 4)
    assert percentile_range(counts, edges, 97) == (-1, 0)  # 98 of 100 are in the bin from -1 to 0


def test_the_percentile_stays_within_the_extremes():
    observed = Observed(0.1, 0.4, -1, np.array([0, 0, 0, 0, 50, 0, 0, 50]))
    params = PARAMS.model_copy(update={"method": "percentile", "percentile": 100})
    assert choose_range(observed, params) == (0.1, 0.4)


def test_mse_gives_up_a_lone_outlier_and_keeps_an_even_spread():
    bins, edges = 2048, np.linspace(-100, 100, 2049)
    outlier = np.zeros(bins, np.int64)
    outlier[1024:1034] = 1_000_000  # 0 to 1
    outlier[-1] = 1  # one value at 100
    low, high = mse_range(outlier, edges, (0.0, 100.0))
    assert low == 0 and 0.9 <= high < 10
    even = np.zeros(bins, np.int64)
    even[1024:] = 1000
    assert mse_range(even, edges, (0.0, 100.0))[1] >= 99


def test_entropy_gives_up_a_thin_tail():
    values = np.concatenate([np.random.default_rng(0).normal(size=200_000), [60.0]]).astype(np.float32)
    edges = np.linspace(-60, 60, 2049)
    low, high = entropy_range(count(values, 60.0, 2048), edges)
    assert 3 < high < 30 and -30 < low < -3


def test_a_constant_activation_gets_a_range_that_is_wider_than_nothing(save_graph, spec, tmp_path):
    nodes = [helper.make_node("Mul", ["x", "zero"], ["a"]), helper.make_node("Add", ["a", "three"], ["y"])]
    weights = {"zero": np.zeros(1, np.float32), "three": np.full(1, 3, np.float32)}
    model = save_graph(nodes, [("x", ["batch", 4])], [("y", ["batch", 4])], weights)
    for method in ("minmax", "percentile", "entropy", "mse"):
        params = PARAMS.model_copy(update={"method": method})
        found, metrics = find_ranges(onnx.load(model), random_samples(tmp_path), params)
        assert found["a"] == (0.0, 1.0)
        assert found["y"][0] == 0.0 and found["y"][1] > 0
        assert metrics.constant_tensors == 2


def test_what_only_goes_into_an_activation_has_no_range(save_graph, tmp_path):
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Exp", ["b"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    model = onnx.load(save_graph(nodes, [("x", ["batch", 4])], [("y", ["batch", 4])]))
    assert values_to_observe(model) == ["x", "b", "c", "d", "y"]


def test_every_range_holds_zero():
    assert include_zero(2.0, 3.0) == (0.0, 3.0)
    assert include_zero(-3.0, -2.0) == (-3.0, 0.0)
    assert include_zero(0.0, 0.0) == (0.0, 1.0)


def test_the_files_and_the_metrics(relu, spec, tmp_path):
    metrics = calibrate(relu, spec, random_samples(tmp_path), PARAMS, tmp_path / "out")
    assert metrics.samples == 7 and metrics.tensors == 2 and metrics.clipped_share == 0
    assert set(read_json(tmp_path / "out/ranges.json")["ranges"]) == set(float_values(onnx.load(relu)))
    assert (tmp_path / "out/model.onnx").is_file()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([], "there is no sample to calibrate with"),
        ([np.zeros(4, np.float32), np.array([0, np.nan, 0, 0], np.float32)], "calibration sample 1: x has NaN"),
        ([np.zeros(5, np.float32)], "calibration sample 0"),
        ([np.zeros(4, np.float64)], "calibration sample 0"),
    ],
)
def test_bad_samples_are_named_and_nothing_is_written(relu, spec, tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        calibrate(relu, spec, save_samples(tmp_path / "bad.npz", arrays), PARAMS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_with_nan_is_named(save_graph, spec, tmp_path):
    model = save_graph([helper.make_node("Log", ["x"], ["y"])], [("x", ["batch", 4])], [("y", ["batch", 4])])
    samples = save_samples(tmp_path / "s.npz", [np.ones(4, np.float32), np.full(4, -1, np.float32)])
    with pytest.raises(DataError, match="calibration sample 1 gives NaN in the output y"):
        calibrate(model, spec, samples, PARAMS, tmp_path / "out")


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_an_input_and_an_output_with_infinity_have_no_range_and_the_rest_has_one(save_graph, spec, tmp_path, method):
    nodes = [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Exp", ["x"], ["e"])]
    nodes += [helper.make_node("Neg", ["e"], ["n"]), helper.make_node("Add", ["a", "n"], ["y"])]
    model = save_graph(nodes, [("x", ["batch", 4])], [("y", ["batch", 4])])
    masks = [np.array(x, np.float32) for x in ([0, -np.inf, 1, 0], [1, 0, 0, 0.5])]
    calibrate(
        model,
        spec,
        save_samples(tmp_path / "s.npz", masks),
        PARAMS.model_copy(update={"method": method}),
        tmp_path / "out",
    )
    found = read_json(tmp_path / "out/ranges.json")
    assert found["boundless"] == ["x", "a", "y"] and found["ranges"].keys() == {"e", "n"}
    assert np.isfinite(list(found["ranges"].values())).all()


def test_a_mask_before_a_softmax_reaches_as_far_as_the_softmax_sees(save_graph, tmp_path):
    """exp(-16) is below what 8 bits and float32 sums see; the mask itself has no range, the masked scores have one."""
    nodes = [
        helper.make_node("Where", ["c", "zero", "least"], ["m"], name="where"),
        helper.make_node("Add", ["x", "m"], ["a"], name="add"),
        helper.make_node("Softmax", ["a"], ["y"], name="softmax", axis=-1),
    ]
    for least in (-np.inf, np.finfo(np.float32).min):
        weights = {
            "c": np.array([True, True, True, False]),
            "zero": np.zeros((), np.float32),
            "least": np.array(least, np.float32),
        }
        model = onnx.load(save_graph(nodes, [("x", ["batch", 4])], [("y", ["batch", 4])], weights))
        samples = save_samples(tmp_path / "s.npz", [np.array(x, np.float32) for x in ([1, -2, 0, 9], [5, 4, 3, 9])])
        found, metrics = find_ranges(model, samples, PARAMS)
        assert found["a"] == (1 - 16, 5)
        assert "m" not in found and metrics.boundless == ["m"]
        assert metrics.tensors == len(found) == 3


def test_a_row_that_is_masked_as_a_whole_leaves_no_mark():
    values = np.array([[1, 2, -1e9], [-np.inf] * 3, [np.finfo(np.float32).min] * 3], np.float32)
    np.testing.assert_array_equal(within_reach(values, -1), [1, 2, 2 - 16])


def test_nan_inside_is_no_failure_where_the_outputs_are_finite(save_graph, tmp_path):
    nodes = [
        helper.make_node("Div", ["x", "x"], ["q"], name="div"),
        helper.make_node("IsNaN", ["q"], ["n"], name="nan"),
        helper.make_node("Where", ["n", "x", "q"], ["y"], name="where"),
    ]
    model = onnx.load(save_graph(nodes, [("x", ["batch", 4])], [("y", ["batch", 4])]))
    samples = save_samples(tmp_path / "s.npz", [np.array([0, 1, 2, 3], np.float32)])
    found, metrics = find_ranges(model, samples, PARAMS)
    assert metrics.boundless == ["q"] and set(found) == {"x", "y"}


def test_values_without_elements_and_without_axes(save_graph, tmp_path):
    """The tail of a detector: the values that a threshold leaves, which may be none, and their number."""
    nodes = [
        helper.make_node("Greater", ["x", "threshold"], ["m"], name="greater"),
        helper.make_node("NonZero", ["m"], ["places"], name="places"),
        helper.make_node("Transpose", ["places"], ["indices"], name="indices"),
        helper.make_node("GatherND", ["x", "indices"], ["kept"], name="kept"),
        helper.make_node("ReduceSum", ["kept", ""], ["sum"], name="sum", keepdims=0),
    ]
    weights = {"threshold": np.array(2, np.float32)}
    model = onnx.load(save_graph(nodes, [("x", ["batch", 4])], [("kept", ["found"]), ("sum", [])], weights))
    samples = save_samples(tmp_path / "s.npz", [np.array(x, np.float32) for x in ([0, 1, 0, 0], [1, 3, 2, 5])])
    assert find_ranges(model, samples, PARAMS)[0] == {"x": (0, 5), "kept": (0, 5), "sum": (0, 8)}


def test_a_graph_of_integers_has_no_ranges(save_graph, tmp_path):
    kind = onnx.TensorProto.INT64
    nodes = [helper.make_node("Add", ["x", "x"], ["y"], name="add")]
    model = onnx.load(save_graph(nodes, [("x", kind, ["batch", 4])], [("y", kind, ["batch", 4])]))
    found, metrics = find_ranges(model, save_samples(tmp_path / "s.npz", [np.arange(4)]), PARAMS)
    assert found == {} and metrics.tensors == 0


def test_a_constant_that_a_node_computes_has_a_range(save_graph, tmp_path):
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["c"], name="c"),
        helper.make_node("Exp", ["c"], ["e"], name="e"),
        helper.make_node("Add", ["x", "e"], ["y"], name="add"),
    ]
    weights = {"shape": np.array([4])}
    model = onnx.load(save_graph(nodes, [("x", ["batch", 4])], [("y", ["batch", 4])], weights))
    found = find_ranges(model, save_samples(tmp_path / "s.npz", [np.ones(4, np.float32)]), PARAMS)[0]
    assert found == {"x": (0, 1), "e": (0, 1), "y": (0, 2)}


def test_the_ranges_cover_the_shape_cases(save_graph, make_spec, tmp_path):
    """The mean over the length is largest where only the first, largest values are left."""
    nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["y"], name="mean", keepdims=0)]
    model = save_graph(nodes, [("x", ["batch", "length"])], [("y", ["batch"])], {"axes": np.array([1])})
    spec = make_spec({"x": ["batch", "length"]}, {"y": ["batch"]}, batch=(1, 4, 2), length=(2, 8, 8))
    samples = save_samples(tmp_path / "s.npz", [np.array([9, 7, 0, 0, 0, 0, 0, 0], np.float32)] * 3)
    calibrate(model, spec, samples, PARAMS, tmp_path / "out")
    content = read_json(tmp_path / "out/ranges.json")
    assert content["ranges"] == {"x": [0, 9], "y": [0, 8]} and content["narrowest"] == {"y": 1.0}


def test_a_shape_case_widens_a_range_only_where_it_would_lose_much():
    """The samples' range is 0 to 4. Of a case with 1 of 10 values at 6, the range cuts off 4 of about 116."""
    params = PARAMS.model_copy(update={"method": "percentile", "percentile": 100})
    samples = observe_values(np.array([0, 4], np.float32), 4096)
    surprise = observe_values(np.array([6] + [3] * 9, np.float32), 4096)
    assert clipping_loss(surprise, (0, 4)) == pytest.approx(4 / 117, rel=1e-2)
    assert cover_cases(samples, [surprise], params) == (0, 6)
    usual = observe_values(np.array([4.1] + [3] * 9, np.float32), 4096)
    assert cover_cases(samples, [usual], params) == (0, 4)
    bare = [observe_values(np.array(values, np.float32), None) for values in ([0, 4], [3, 4.5])]
    assert cover_cases(bare[0], bare[1:], PARAMS) == (0, 4.5)


def test_a_range_stays_as_wide_as_a_shape_case_needs():
    """The range is 0 to 6. At 0.95 of it, a case with 1 of 10 values at 6 loses 0.09 of 117, at 0.90 0.34."""
    samples = observe_values(np.array([0, 4], np.float32), 4096)
    surprise = observe_values(np.array([6] + [3] * 9, np.float32), 4096)
    assert narrowest_factor(samples, [surprise], (0, 6)) == pytest.approx(0.95)
    usual = observe_values(np.array([3] * 10, np.float32), 4096)
    assert narrowest_factor(samples, [usual], (0, 4)) == narrowest_factor(samples, [], (0, 4)) == 0
    bare = [observe_values(np.array(values, np.float32), None) for values in ([0, 4], [3, 4.5], [3, 4])]
    assert narrowest_factor(bare[0], bare[1:2], (0, 4.5)) == 1 and narrowest_factor(bare[0], bare[2:], (0, 4)) == 0


def test_activations_beyond_the_memory_of_a_run_are_observed_in_several(relu, tmp_path):
    assert list(split_by_size({"a": 4, "b": 4, "c": 9, "d": 1}, 8)) == [["a", "b"], ["c"], ["d"]]
    model, runs = onnx.load(relu), sample_runs(random_samples(tmp_path))
    assert observe(model, runs, None, 2, run_bytes=16) == observe(model, runs, None, 2)


def test_transposed_and_computed_weights_become_initializers(save_graph, tmp_path):
    """A tied embedding is transposed for the last product; both have the weight's values."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "t"], ["y"]),
    ]
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    model = onnx.load(save_graph(nodes, [("x", ["batch", 4])], [("y", ["batch", 4])], {"w": weight}))
    name_nodes(model)
    assert fold_weights(model) == 1
    assert [(node.op_type, node.input[1]) for node in model.graph.node] == [("MatMul", "w"), ("MatMul", "t_folded")]
    assert len({node.name for node in model.graph.node}) == 2
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(model.graph.initializer[1]), weight.T)
    assert len(weighted_layers(model)) == 2


def test_weights_may_be_in_another_file(save_graph, spec, tmp_path):
    """As over 2 GB: the calibrated model has its weights in a file too, and the same ranges."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="m"),
        helper.make_node("MatMul", ["a", "v"], ["y"], name="n"),
    ]
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(4, 512)).astype(np.float32),
        "v": random.normal(size=(512, 4)).astype(np.float32),
    }
    path = save_graph(nodes, [("x", ["batch", 4])], [("y", ["batch", 4])], weights)
    (tmp_path / "source").mkdir()
    other = save_model(onnx.load(path), tmp_path / "source", threshold=0)
    samples = random_samples(tmp_path)
    for source, folder in ((path, "inside"), (other, "outside")):
        calibrate(source, spec, samples, PARAMS, tmp_path / folder)
    assert external_files(tmp_path / "outside/model.onnx") == {"model.onnx.data"}
    assert read_json(tmp_path / "inside/ranges.json") == read_json(tmp_path / "outside/ranges.json")


def test_a_quantized_model_is_refused(save_graph, spec, tmp_path):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    weights = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    model = save_graph(nodes, [("x", ["batch", 4])], [("y", ["batch", 4])], weights)
    with pytest.raises(GraphError, match=r"already quantized .*float32 model"):
        calibrate(model, spec, random_samples(tmp_path), PARAMS, tmp_path / "out")
