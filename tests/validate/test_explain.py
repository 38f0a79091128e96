"""Where a variant's error comes from, on a network with one layer that was spoilt."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_release.core.array_files import writing_arrays
from onnx_release.core.params import Fp16
from onnx_release.data.samples import SampleFile
from onnx_release.graph.layers import initializers
from onnx_release.graph.targets import TARGETS
from onnx_release.reduce.fp16 import convert_to_fp16
from onnx_release.static_quantization.qdq import insert_qdq
from onnx_release.validate.explain import explain_model, first_beyond
from tests.residual import save_inputs, save_network
from tests.samples import save_samples
from tools.explain import departure, ranking

SOURCES = {"depthwise": {"module": "block.1", "file": "network.py", "line": 7}}


@pytest.fixture
def network(save_graph):
    return save_network(save_graph)


def spoil(network, tmp_path, change):
    """The network with the weight of its depthwise Conv changed."""
    model = onnx.load(network)
    tensor = initializers(model)["w2"]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), "w2"))
    onnx.save(model, tmp_path / "spoilt.onnx")
    return tmp_path / "spoilt.onnx"


def rows_of(variant, network, tmp_path):
    return explain_model(variant, network, save_inputs(tmp_path, 4), range(4), SOURCES)


def departing(rows, bound):
    row = first_beyond(rows, bound)
    return row and row["node"]


def test_the_spoilt_layer_adds_all_of_the_error(network, tmp_path):
    """Weights that are a tenth too large make an output that is off by a tenth, but for bias and bounds."""
    rows = rows_of(spoil(network, tmp_path, lambda weight: weight * 1.1), network, tmp_path)
    added = {row["node"]: row["added"] for row in rows}
    assert set(added) == {
        *("first", "clip1", "depthwise", "clip2", "project", "inner", "add", "expand", "relu", "mean", "classify")
    }
    assert 0.001 < added.pop("depthwise") < 0.05
    assert max(added.values()) < 1e-12
    assert departing(rows, 60) == "depthwise"
    (row,) = (row for row in rows if row["node"] == "depthwise")
    assert (row["module"], row["source"], row["operators"]) == ("block.1", "network.py:7", "Conv")


def test_range_and_spread_are_those_of_the_reference(network, tmp_path):
    rows = {row["node"]: row for row in rows_of(network, network, tmp_path)}
    assert rows["clip1"]["low"] == 0 and rows["clip1"]["high"] <= 6
    weight = numpy_helper.to_array(initializers(onnx.load(network))["w1"])
    sizes = np.abs(weight).max(axis=(1, 2, 3))
    assert rows["first"]["weight_spread"] == pytest.approx(sizes.max() / np.median(sizes))
    assert rows["add"]["weight_spread"] is None
    assert first_beyond(list(rows.values()), 100) is None


def test_a_quantized_variant_is_seen_through_its_ranges(network, tmp_path):
    """The Clips are gone there, and its bottleneck's range is a tenth of what it should be."""
    model = onnx.load(network)
    values = [name for node in model.graph.node for name in node.output]
    ranges = dict.fromkeys(["x", *values], (-10.0, 10.0)) | dict.fromkeys(["r1", "r2"], (0.0, 6.0)) | {"a": (-0.1, 0.1)}
    onnx.save(insert_qdq(model, ranges, TARGETS["vnni"], []), tmp_path / "int8.onnx")
    rows = rows_of(tmp_path / "int8.onnx", network, tmp_path)
    assert max(rows, key=lambda row: row["added"])["node"] == "add"
    assert "Conv+Clip" in {row["operators"] for row in rows}


def test_a_float16_variant_is_close_everywhere(network, tmp_path):
    params = Fp16(block_operators=[], max_finite_val=65504)
    convert_to_fp16(network, save_inputs(tmp_path, 2), params, tmp_path / "fp16")
    rows = rows_of(tmp_path / "fp16/model.onnx", network, tmp_path)
    assert first_beyond(rows, 40) is None
    assert any(row["added"] > 0 for row in rows)


def test_not_a_number_is_the_first_beyond_any_bound_and_on_top(network, tmp_path):
    variant = spoil(network, tmp_path, lambda weight: np.full_like(weight, np.nan))
    rows = rows_of(variant, network, tmp_path)
    assert departing(rows, 0) == "depthwise"
    assert ranking(rows, 1).splitlines()[1].startswith("depthwise  Conv       not finite")


def test_the_same_infinity_is_no_error_of_a_step(save_graph, tmp_path):
    """Scores plus a mask, which has no power of its own; only the scores are a tenth too large."""
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["scores", "mask"], name="split", axis=1),
        helper.make_node("Relu", ["mask"], ["r"], name="relu"),
        helper.make_node("Sub", ["mask", "r"], ["m"], name="subtract"),
        helper.make_node("Mul", ["scores", "weight"], ["s"], name="scale"),
        helper.make_node("Add", ["s", "m"], ["y"], name="hide"),
    ]
    paths = [
        save_graph(
            *(nodes, [("x", ["batch", 4])], [("y", ["batch", 2])]),
            {"sizes": np.array([2, 2]), "weight": np.array([factor], np.float32)},
            name,
        )
        for name, factor in (("float.onnx", 1.0), ("off.onnx", 1.1))
    ]
    samples = save_samples(tmp_path / "masked.npz", [np.array([1, 2, 0, -np.inf], np.float32)])
    rows = explain_model(paths[1], paths[0], samples, [0], {})
    added = {row["node"]: row["added"] for row in rows}
    assert added == {**dict.fromkeys(added, 0.0), "scale": pytest.approx(0.01, rel=1e-4)}
    assert departing(rows, 40) == "scale"
    assert next(row["sqnr_db"] for row in rows if row["node"] == "hide") == pytest.approx(20, abs=1e-3)


def test_the_tables_say_it_in_words(network, tmp_path):
    rows = rows_of(spoil(network, tmp_path, lambda weight: weight * 1.1), network, tmp_path)
    lines = ranking(rows, 3).splitlines()
    assert len(lines) == 4 and lines[1].startswith("depthwise  Conv") and lines[1].endswith("network.py:7")
    assert departure(rows, 60).startswith("The first step below 60 dB is depthwise (Conv, block.1 at network.py:7)")
    assert departure(rows, 0) == "Every step has an SQNR of at least 0 dB."


def test_token_ids_and_masks_reach_the_steps_that_take_them(save_graph, tmp_path):
    """An embedding of tokens, and a product with a table, masked: one row of the table is off by a half."""
    table, weight = np.array([[1, 0], [0, 2], [3, 1]], np.float32), np.array([[1, 0], [0, 1]], np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"], name="embed"),
        helper.make_node("Cast", ["mask"], ["kept"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["words", "kept"], ["masked"], name="drop"),
        helper.make_node("MatMul", ["masked", "weight"], ["y"], name="product"),
    ]
    integers = [("ids", TensorProto.INT64, ["batch", 3]), ("mask", TensorProto.INT64, ["batch", 3, 1])]
    paths = [
        save_graph(nodes, integers, [("y", ["batch", 3, 2])], {"table": table * scale, "weight": weight}, name)
        for name, scale in (("float.onnx", np.float32(1)), ("off.onnx", np.float32(1.5)))
    ]
    with writing_arrays(tmp_path / "ids.npz") as writer:
        writer.add_all("000000", {"ids": np.array([0, 2, 1]), "mask": np.array([[1], [1], [0]])})
        writer.add("labels", np.array([-1]))
        writer.add("groups", np.array(["a"]))
    rows = {
        row["node"]: row for row in explain_model(paths[1], paths[0], SampleFile(tmp_path / "ids.npz"), range(1), {})
    }
    assert set(rows) == {"embed", "cast", "drop", "product"}
    # By hand: an error of half of the right answer has a quarter of its power. The steps after it add nothing.
    assert rows["embed"]["sqnr_db"] == pytest.approx(10 * np.log10(4), abs=1e-4)
    assert rows["embed"]["added"] == pytest.approx(1 / 4)
    assert rows["drop"]["added"] == rows["product"]["added"] == 0
    assert rows["product"]["sqnr_db"] == pytest.approx(10 * np.log10(4), abs=1e-4)


def test_a_branch_gets_the_variants_values_that_it_takes_from_around_it(save_graph, tmp_path):
    """The first layer of the variant is off by a half; what an If makes of it in its branch adds no error."""

    def branch(operator):
        node = helper.make_node(operator, ["wide", "wide"], [f"{operator}_out"], name=operator)
        return helper.make_graph([node], operator, [], [onnx.ValueInfoProto(name=f"{operator}_out")])

    branches = {"then_branch": branch("Add"), "else_branch": branch("Sub")}
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["wide"], name="first"),
        helper.make_node("If", ["yes"], ["doubled"], name="choice", **branches),
        helper.make_node("Sqrt", ["doubled"], ["y"], name="root"),
    ]
    paths = [
        save_graph(
            nodes,
            [("x", ["batch", 2])],
            [("y", ["batch", 2])],
            {"weight": np.eye(2, dtype=np.float32) * scale, "yes": np.array(True)},
            name,
        )
        for name, scale in (("float.onnx", np.float32(1)), ("off.onnx", np.float32(1.5)))
    ]
    with writing_arrays(tmp_path / "x.npz") as writer:
        writer.add_all("000000", {"x": np.array([1, 2], np.float32)})
        writer.add("labels", np.array([-1]))
        writer.add("groups", np.array(["a"]))
    rows = {row["node"]: row for row in explain_model(paths[1], paths[0], SampleFile(tmp_path / "x.npz"), range(1), {})}
    assert rows["first"]["added"] == pytest.approx(1 / 4)
    assert rows["choice"]["added"] == rows["root"]["added"] == 0
    # By hand: twice what is off by a half is off by a half, and its power by a quarter.
    assert rows["choice"]["sqnr_db"] == pytest.approx(10 * np.log10(4), abs=1e-4)


def test_a_small_error_is_not_nothing():
    row = {"node": "conv", "operators": "Conv", "added": 3.62e-7, "sqnr_db": 64.4, "low": 0.0, "high": 1.0}
    row |= {"weight_spread": None, "module": "", "source": ""}
    lines = ranking([row, {**row, "added": 0.0}, {**row, "added": 0.125}], 3).splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["12.5", "3.62e-05", "0"]
