"""Where a variant's error comes from, on a network with one layer that was spoilt."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_release.explain import explain, first_beyond
from onnx_release.fp16 import convert_to_fp16
from onnx_release.layers import initializers
from onnx_release.params import Fp16
from onnx_release.qdq import insert_qdq
from onnx_release.targets import TARGETS
from tests.residual import save_inputs, save_network
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
    return explain(variant, network, save_inputs(tmp_path, 4), range(4), SOURCES)


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


def test_the_tables_say_it_in_words(network, tmp_path):
    rows = rows_of(spoil(network, tmp_path, lambda weight: weight * 1.1), network, tmp_path)
    lines = ranking(rows, 3).splitlines()
    assert len(lines) == 4 and lines[1].startswith("depthwise  Conv") and lines[1].endswith("network.py:7")
    assert departure(rows, 60).startswith("The first step beyond 60 dB is depthwise (Conv, block.1 at network.py:7)")
    assert departure(rows, 0) == "No step is further from the reference than 0 dB."
