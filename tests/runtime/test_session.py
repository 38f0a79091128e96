"""ONNX Runtime behind one error that says what went in."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import helper
from onnxruntime import ExecutionMode, GraphOptimizationLevel

from onnx_release.core.errors import GraphError, ProviderError, StorageError
from onnx_release.core.hardware import gpus
from onnx_release.core.params import Runtime
from onnx_release.runtime.session import (
    create_session,
    open_session,
    open_with,
    run_session,
    save_optimized,
    session_options,
)
from tests.imports import ROOT


def negating(save_graph):
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Add", ["x", "x"], ["twice"])]
    return save_graph(nodes, [("x", ["batch", 2])], [("twice", ["batch", 2]), ("y", ["batch", 2])])


def test_outputs_come_by_name(save_graph):
    outputs = run_session(open_session(negating(save_graph)), {"x": np.array([[1, -2]], np.float32)})
    assert {name: array.tolist() for name, array in outputs.items()} == {"twice": [[2, -4]], "y": [[-1, 2]]}


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"x": np.ones((3, 5), np.float32)}, r"fails on x \[3, 5\]: .*Got: 5 Expected: 2"),
        ({"x": np.ones((3, 2), np.float64)}, r"fails on x \[3, 2\]: .*tensor\(double\).*tensor\(float\)"),
        ({"z": np.ones((3, 2), np.float32)}, r"fails on z \[3, 2\]: .*\['x'\]"),
    ],
    ids=["a shape", "a dtype", "a name"],
)
def test_what_does_not_fit_is_named_with_its_shape(save_graph, inputs, says):
    session = open_session(negating(save_graph))
    with pytest.raises(GraphError, match=f"(?s){says}"):
        run_session(session, inputs)


def test_a_failure_inside_the_graph_is_named_with_the_shapes(save_graph):
    path = save_graph([helper.make_node("Add", ["a", "b"], ["y"])], [("a", ["n"]), ("b", ["m"])], [("y", ["k"])])
    with pytest.raises(GraphError, match=r"fails on a \[2\], b \[3\]"):
        run_session(open_session(path), {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32)})


def test_a_damaged_file_is_named(save_graph):
    path = negating(save_graph)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(GraphError, match=r"ONNX Runtime .* does not load .*model\.onnx"):
        open_session(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(GraphError, match=r"does not load .*nowhere\.onnx"):
        open_session(tmp_path / "nowhere.onnx")


def test_the_threads_are_those_asked_for(save_graph):
    assert open_session(negating(save_graph), 1).get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize(
    ("changed", "seen"),
    [
        ({"intra_threads": 61}, ("intra_op_num_threads", 61)),
        ({"inter_threads": 61}, ("inter_op_num_threads", 61)),
        ({"execution_mode": "parallel"}, ("execution_mode", ExecutionMode.ORT_PARALLEL)),
        ({"graph_optimization": "basic"}, ("graph_optimization_level", GraphOptimizationLevel.ORT_ENABLE_BASIC)),
        ({"arena": False}, ("enable_cpu_mem_arena", False)),
        ({"memory_pattern": False}, ("enable_mem_pattern", False)),
    ],
    ids=str,
)
def test_a_setting_reaches_onnx_runtime(changed, seen):
    name, value = seen
    assert getattr(session_options(Runtime(**changed)), name) == value
    assert getattr(session_options(Runtime()), name) != value


@pytest.mark.parametrize(
    ("changed", "key", "values"),
    [
        ({"spinning": False}, "session.intra_op.allow_spinning", ("1", "0")),
        ({"spinning": False}, "session.inter_op.allow_spinning", ("1", "0")),
        ({"denormals_as_zero": True}, "session.set_denormal_as_zero", ("0", "1")),
    ],
)
def test_a_setting_by_key_reaches_onnx_runtime(changed, key, values):
    options = session_options(Runtime()), session_options(Runtime(**changed))
    assert tuple(option.get_session_config_entry(key) for option in options) == values


def test_without_a_number_every_core_that_the_process_may_use_gets_a_thread(monkeypatch):
    monkeypatch.setattr("onnx_release.runtime.session.available_cores", lambda: 5)
    assert session_options(Runtime()).intra_op_num_threads == 5


def test_auto_takes_the_cpu_where_there_is_no_gpu(save_graph, monkeypatch):
    monkeypatch.setattr("onnx_release.runtime.session.gpus", lambda: [])
    opened = open_with(negating(save_graph), Runtime())
    assert (opened.provider, opened.note) == ("CPUExecutionProvider", "")


def test_auto_says_why_a_gpu_that_is_there_is_not_used(save_graph, monkeypatch):
    monkeypatch.setattr("onnx_release.runtime.session.gpus", lambda: ["H100"])
    monkeypatch.setattr("onnx_release.runtime.session.check_provider", lacking)
    opened = open_with(negating(save_graph), Runtime())
    assert (opened.provider, opened.note) == ("CPUExecutionProvider", "the GPU is not used: libcudnn.so.9 is missing")


def lacking(provider):
    raise ProviderError("libcudnn.so.9 is missing")


def test_a_named_provider_that_leaves_nodes_to_another_is_an_error_and_auto_notes_it(save_graph, monkeypatch):
    # No other provider runs here: the CPU's session stands for CUDA's, and its nodes are "elsewhere".
    def cpu(model, options, providers):
        return create_session(model, options, ["CPUExecutionProvider"])

    monkeypatch.setattr("onnx_release.runtime.session.gpus", lambda: ["H100"])
    monkeypatch.setattr("onnx_release.runtime.session.check_provider", lambda provider: None)
    monkeypatch.setattr("onnx_release.runtime.session.create_session", cpu)
    monkeypatch.setattr("onnxruntime.InferenceSession.get_providers", lambda _: ["CUDAExecutionProvider"])
    note = open_with(negating(save_graph), Runtime()).note
    assert note.startswith("CUDAExecutionProvider does not run ")
    assert "(Neg)" in note and "(Add)" in note
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider does not run .*\(Neg\).*change these operators"):
        open_with(negating(save_graph), Runtime(provider="cuda"))


def test_a_provider_that_onnx_runtime_drops_is_an_error(save_graph, monkeypatch):
    monkeypatch.setattr("onnx_release.runtime.session.check_provider", lambda provider: None)
    with pytest.raises(
        ProviderError, match=r"CUDAExecutionProvider does not start on this machine.*\['CPUExecutionProvider'\]"
    ):
        open_with(negating(save_graph), Runtime(provider="cuda"))


def test_nothing_is_printed_about_cuda_without_a_gpu(save_graph):
    code = (
        "from pathlib import Path; from onnx_release.runtime.session import *; "
        "from onnx_release.core.params import Runtime; "
        f"open_with(Path({str(negating(save_graph))!r}), Runtime())"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    if not gpus():
        assert result.stdout + result.stderr == ""


@pytest.mark.parametrize(("free", "error"), [(0, StorageError), (10**9, GraphError)])
def test_an_optimized_graph_that_has_no_room_is_not_blamed_on_the_model(save_graph, tmp_path, monkeypatch, free, error):
    """ONNX Runtime cannot write to a folder that is not there either, and says as little of it."""
    model = save_graph([helper.make_node("Relu", ["x"], ["y"])], [("x", [1])], [("y", [1])])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(error):
        save_optimized(model, tmp_path / "gone/model.onnx", Runtime(provider="cpu"))
