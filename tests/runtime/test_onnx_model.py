"""Every request is checked against the spec before ONNX Runtime sees it, and the answers are those of the graph."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime import RunOptions

from onnx_release.core.errors import GraphError, InputError, ProviderError
from onnx_release.core.hardware import cpu_kind
from onnx_release.core.params import Runtime
from onnx_release.core.spec import Spec
from onnx_release.runtime.onnx_model import CPU_KEY, OnnxModel
from onnx_release.runtime.session import run_bound
from tests.endless import DECLARED, EVER, endless_model
from tests.imports import ROOT

RUNTIME = Runtime(provider="cpu", intra_threads=1)
SPEC = Spec.model_validate(
    {
        "task": "tensor",
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}, "width": {"min": 2, "max": 8, "example": 3}},
        "inputs": [
            {"name": "x", "dtype": "float32", "shape": ["batch", "width"]},
            {"name": "ids", "dtype": "int64", "shape": ["batch", "width"]},
        ],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", "width"]}],
    }
)


@pytest.fixture
def path(save_graph):
    """y = x + ids"""
    nodes = [
        helper.make_node("Cast", ["ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "numbers"], ["y"]),
    ]
    shape = ["batch", "width"]
    return save_graph(nodes, [("x", shape), ("ids", TensorProto.INT64, shape)], [("y", shape)])


def inputs(batch=2, width=3, x=np.float32, ids=np.int64):
    return {"x": np.full((batch, width), 0.5, x), "ids": np.full((batch, width), 2, ids)}


def test_a_request_is_answered_by_name(path):
    outputs = OnnxModel(path, SPEC, RUNTIME).run(inputs(4, 8))
    assert list(outputs) == ["y"]
    assert outputs["y"].dtype == np.float32
    assert outputs["y"].tolist() == [[2.5] * 8] * 4


def test_it_says_what_runs_it(path):
    model = OnnxModel(path, SPEC, RUNTIME)
    assert (model.provider, model.note) == ("CPUExecutionProvider", "")


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"x": inputs()["x"]}, "the model takes x, ids: ids missing"),
        ({**inputs(), "mask": inputs()["x"]}, "the model takes x, ids: mask unknown"),
        ({"x": inputs()["x"], "id": inputs()["ids"]}, "ids missing and id unknown"),
        (inputs(x=np.float64), "x is float64 where float32 is declared"),
        (inputs(ids=np.int32), "ids is int32 where int64 is declared"),
        ({**inputs(), "x": np.ones(3, np.float32)}, r"x has the shape \[3\] where \['batch', 'width'\] is declared"),
        ({**inputs(), "ids": np.ones((2, 4), np.int64)}, r"ids has the shape \[2, 4\].*\(width is 3\)"),
        ({**inputs(), "ids": np.ones((3, 3), np.int64)}, r"ids has the shape \[3, 3\].*\(batch is 2\)"),
        (inputs(batch=5), "batch is 5, where 1 to 4 is declared"),
        (inputs(batch=0), "batch is 0, where 1 to 4 is declared"),
        (inputs(width=1), "width is 1, where 2 to 8 is declared"),
        ({**inputs(), "x": [[1.0]]}, "x is a list, not a numpy array"),
    ],
    ids=[
        "missing",
        "unknown",
        "misspelt",
        "float64",
        "int32",
        "rank",
        "width",
        "batch",
        "large",
        "empty",
        "small",
        "list",
    ],
)
def test_a_request_that_contradicts_the_spec_is_refused(path, request_, says):
    with pytest.raises(InputError, match=says):
        OnnxModel(path, SPEC, RUNTIME).run(request_)


def test_an_array_need_not_lie_in_one_piece(path):
    model = OnnxModel(path, SPEC, RUNTIME)
    x: np.ndarray = np.arange(12, dtype=np.float32).reshape(4, 3).T[:, ::2]  # [3, 2]
    outputs = model.run({"x": x, "ids": np.zeros((3, 2), np.int64)})
    assert outputs["y"].tolist() == x.tolist()


def test_any_number_of_threads_may_run_it_at_once(path):
    model = OnnxModel(path, SPEC, RUNTIME)

    def run(number):
        request: dict[str, np.ndarray] = {"x": np.full((2, 3), number, np.float32), "ids": np.zeros((2, 3), np.int64)}
        return {float(value) for _ in range(50) for value in model.run(request)["y"].ravel()}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(16))) == [{float(number)} for number in range(16)]


def test_a_run_with_bound_outputs_gives_the_same(path):
    session = OnnxModel(path, SPEC, RUNTIME).session
    found = run_bound(session, inputs(), "cpu", 0)
    assert found["y"].tolist() == [[2.5] * 3] * 2
    with pytest.raises(GraphError, match=r"the model fails on x \[2, 3\], ids \[2, 4\]"):
        run_bound(session, {**inputs(), "ids": np.ones((2, 4), np.int64)}, "cpu", 0)


def test_a_file_with_other_names_than_the_spec_is_refused(save_graph):
    path = save_graph([helper.make_node("Neg", ["x"], ["z"])], [("x", ["batch", "width"])], [("z", ["batch", "width"])])
    with pytest.raises(GraphError, match="has the inputs x, where the spec declares x, ids"):
        OnnxModel(path, SPEC, RUNTIME)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ((TensorProto.DOUBLE, ["n", "m"]), (TensorProto.DOUBLE, ["n", "m"]), r"x of .* is a tensor\(double\), where"),
        ((TensorProto.FLOAT, ["n", "m"]), (TensorProto.INT64, ["n", "m"]), r"y of .* is a tensor\(int64\), where"),
        ((TensorProto.FLOAT, [1, "m"]), (TensorProto.FLOAT, ["n", "m"]), r"x of .* has the shape \[1, 'm'\], where"),
        ((TensorProto.FLOAT, ["n"]), (TensorProto.FLOAT, ["n"]), r"x of .* has the shape \['n'\], where"),
        ((TensorProto.FLOAT, ["n", "m"]), (TensorProto.FLOAT, None), ""),
        ((TensorProto.FLOAT, ["n", "m"]), (TensorProto.FLOAT, ["n", "m"]), ""),
    ],
    ids=["float64", "int64 out", "fixed batch", "rank", "no shape", "other symbols"],
)
def test_a_file_with_other_dtypes_or_shapes_than_the_spec_is_refused(save_graph, x, y, says):
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=y[0])]
    path = save_graph(nodes, [("x", *x)], [("y", *y)])
    spec = SPEC.model_copy(update={"inputs": SPEC.inputs[:1]})
    if not says:
        assert OnnxModel(path, spec, RUNTIME).run({"x": inputs()["x"]})["y"].tolist() == [[0.5] * 3] * 2
        return
    with pytest.raises(GraphError, match=says):
        OnnxModel(path, spec, RUNTIME)


def test_a_provider_that_is_not_there_is_an_error_that_names_what_is_missing(path):
    with pytest.raises(ProviderError, match=r"asks for CUDAExecutionProvider, which does not (load: .*\.so|have)"):
        OnnxModel(path, SPEC, Runtime(provider="cuda"))


def marked(path, **changes):
    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = CPU_KEY, json.dumps({**cpu_kind(), **changes})
    onnx.save(model, path)
    return path


def test_a_graph_that_was_optimised_here_runs_here(path):
    assert OnnxModel(marked(path), SPEC, RUNTIME).run(inputs())


@pytest.mark.parametrize(
    "changes", [{"cpu": "Another CPU"}, {"instruction_sets": ["avx"]}, {"onnxruntime": "1.0.0"}], ids=str
)
def test_one_that_was_optimised_elsewhere_is_refused(path, changes):
    ((key, value),) = changes.items()
    with pytest.raises(GraphError) as error:
        OnnxModel(marked(path, **changes), SPEC, RUNTIME)
    assert f"was optimised for another machine ({key} {value} there" in str(error.value)


def test_it_needs_no_torch():
    code = "import sys, onnx_release.runtime.onnx_model; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("bound", [False, True], ids=["session", "binding"])
def test_a_run_ends_when_another_thread_terminates_it_and_others_go_on(tmp_path, bound):
    """Both runs share the session; the first would last for centuries."""
    model = OnnxModel(endless_model(tmp_path / "model.onnx"), Spec.model_validate(DECLARED), RUNTIME)
    run = partial(run_bound, model.session, device="cpu", device_id=0) if bound else model.run
    options = RunOptions()
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(run, {"x": np.array([[EVER]])}, options=options)
        assert run({"x": np.array([[3]])}, options=RunOptions())["y"].tolist() == [[3]]
        options.terminate = True
        with pytest.raises(GraphError, match="terminate flag"):
            ended.result(timeout=30)
