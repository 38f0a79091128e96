"""The saved graph gives the same answers, is marked with the CPU, and says how much faster it loads."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_release.core.errors import GraphError
from onnx_release.core.hardware import cpu_kind
from onnx_release.core.params import Runtime
from onnx_release.graph.graph import EXTERNAL_DATA, load_model, save_model
from onnx_release.performance.optimize import compare_files, optimize, ready_made
from onnx_release.runtime.onnx_model import CPU_KEY, OnnxModel

RUNTIME = Runtime(provider="cpu", intra_threads=1)
X = np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32)


@pytest.fixture
def spec(make_spec):
    return make_spec({"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]}, batch=(1, 8, 2))


@pytest.fixture
def model(save_graph):
    """A convolution and a Relu, which ONNX Runtime makes one node, and an Identity, which it drops."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Identity", ["b"], ["y"]),
    ]
    weights = {"w": np.random.default_rng(1).standard_normal((4, 3, 1, 1), np.float32)}
    return save_graph(nodes, [("x", ["batch", 3, 8, 8])], [("y", ["batch", 4, 8, 8])], weights)


@pytest.fixture
def optimized(model, tmp_path):
    folder = tmp_path / "optimized"
    folder.mkdir()
    return optimize(model, folder, RUNTIME)


def test_the_graph_is_what_onnx_runtime_runs(optimized):
    operators = [node.op_type for node in onnx.load(optimized).graph.node]
    assert not {"Relu", "Identity"} & set(operators)
    assert [path.name for path in optimized.parent.iterdir()] == ["model.onnx"]


def test_weights_in_another_file_are_copied(save_graph, make_spec, tmp_path):
    spec = make_spec({"x": ["batch", 32]}, {"y": ["batch", 32]}, batch=(1, 8, 2))
    weights = {"w": np.random.default_rng(1).standard_normal((32, 32), np.float32)}
    whole = save_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", ["batch", 32])], [("y", ["batch", 32])], weights
    )
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    before = save_model(load_model(whole), tmp_path / "before", threshold=0)
    after = optimize(before, tmp_path / "after", RUNTIME)
    assert sorted(path.name for path in after.parent.iterdir()) == ["model.onnx", EXTERNAL_DATA]
    assert after.with_name(EXTERNAL_DATA).read_bytes() == weights["w"].tobytes()
    x = np.ones((2, 32), np.float32)
    compare_files("fp32", before, after, spec, RUNTIME, [{"x": x}])  # raises where an answer differs


def test_the_answers_are_the_same(model, optimized, spec):
    before, after = OnnxModel(model, spec, RUNTIME), OnnxModel(optimized, spec, ready_made(RUNTIME))
    np.testing.assert_array_equal(before.run({"x": X})["y"], after.run({"x": X})["y"])


def test_it_is_marked_with_the_cpu(optimized):
    (entry,) = [entry for entry in onnx.load(optimized).metadata_props if entry.key == CPU_KEY]
    assert json.loads(entry.value) == cpu_kind()


def test_it_is_refused_on_another_cpu(optimized, spec, monkeypatch):
    monkeypatch.setattr("onnx_release.runtime.onnx_model.cpu_kind", lambda: {**cpu_kind(), "cpu": "Another CPU"})
    with pytest.raises(GraphError, match=r"was optimised for another machine .*Another CPU here.*run the model"):
        OnnxModel(optimized, spec, ready_made(RUNTIME))


def test_the_same_model_is_the_same_bytes(model, optimized, tmp_path):
    (tmp_path / "again").mkdir()
    assert optimize(model, tmp_path / "again", RUNTIME).read_bytes() == optimized.read_bytes()


def test_the_metrics(model, optimized, spec):
    found = compare_files("fp32", model, optimized, spec, RUNTIME, [{"x": X}])
    assert found.nodes_before == 3
    assert found.nodes < 3
    assert found.load_ms > 0 and found.load_ms_before > 0
    assert found.speedup_low <= found.speedup <= found.speedup_high
    assert found.size_mb == pytest.approx(optimized.stat().st_size / 1e6)


def test_other_answers_are_an_error(model, optimized, spec):
    proto = onnx.load(optimized)
    for tensor in proto.graph.initializer:
        if tensor.raw_data:
            tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * np.float32(1.5)).tobytes()
    onnx.save(proto, optimized)
    with pytest.raises(GraphError, match="gives another y than"):
        compare_files("fp32", model, optimized, spec, RUNTIME, [{"x": X}])


def test_it_ships_without_further_optimisation_on_the_cpu():
    assert ready_made(Runtime(provider="auto", arena=False)) == Runtime(
        provider="cpu", graph_optimization="disabled", arena=False
    )
