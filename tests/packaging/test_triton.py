"""config.pbtxt, read with the protobuf that Triton itself reads it with."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import tritonclient
from google.protobuf import text_format

from onnx_release.core.params import Runtime
from onnx_release.core.spec import Spec, load_spec
from onnx_release.packaging.triton import DATA_TYPES, triton_config
from tests.imports import ROOT

CPU = "CPUExecutionProvider"


def load_protobuf() -> Any:
    """Of the client's gRPC half; the package itself would ask for grpcio, which nothing here needs."""
    path = Path(tritonclient.__path__[0]) / "grpc/model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


model_config_pb2 = load_protobuf()


def parsed(spec: Spec, runtime: Runtime | None = None, provider: str = CPU, model: str = "net") -> Any:
    text = triton_config(model, spec, runtime or Runtime(), provider)
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def tensors(values):
    return {value.name: (model_config_pb2.DataType.Name(value.data_type), list(value.dims)) for value in values}


def test_dynamic_batching_goes_to_the_batch_that_the_spec_allows(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = parsed(load_spec("mobilenet_v2"), model="mobilenet_v2")
    assert (config.name, config.platform, config.max_batch_size) == ("mobilenet_v2", "onnxruntime_onnx", 32)
    assert config.HasField("dynamic_batching")
    assert tensors(config.input) == {"input": ("TYPE_FP32", [3, 224, 224])}
    assert tensors(config.output) == {"logits": ("TYPE_FP32", [1000])}
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert not config.parameters and not config.HasField("optimization")


def test_sizes_that_vary_or_follow_are_open(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = parsed(load_spec("face_pnet"))
    assert config.max_batch_size == 8
    assert tensors(config.input) == {"input": ("TYPE_FP32", [3, -1, -1])}
    assert tensors(config.output) == {
        "regression": ("TYPE_FP32", [4, -1, -1]),
        "probability": ("TYPE_FP32", [2, -1, -1]),
    }
    config = parsed(load_spec("minilm"))
    assert tensors(config.input) == {
        name: ("TYPE_INT64", [-1]) for name in ("input_ids", "attention_mask", "token_type_ids")
    }


def test_a_fixed_batch_is_an_axis_like_any_other(make_spec):
    config = parsed(make_spec({"x": [1, 3]}, {"y": [1, 2]}))
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert tensors([*config.input, *config.output]) == {"x": ("TYPE_FP32", [1, 3]), "y": ("TYPE_FP32", [1, 2])}


@pytest.mark.parametrize("output", [[4], ["batch", "batch"]])
def test_requests_are_not_run_together_where_rows_could_not_be_told_apart(make_spec, output):
    config = parsed(make_spec({"x": ["batch", 3]}, {"y": output}, batch=(1, 8, 2)))
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [-1, 3]
    assert list(config.output[0].dims) == [-1 if axis == "batch" else axis for axis in output]


def test_one_number_a_row_is_reshaped_since_triton_takes_no_empty_shape(make_spec):
    config = parsed(make_spec({"x": ["batch"]}, {"y": ["batch"]}, batch=(1, 8, 2)))
    for value in (*config.input, *config.output):
        assert list(value.dims) == [1] and value.HasField("reshape") and list(value.reshape.shape) == []


def test_every_dtype_of_a_spec_is_one_of_triton(make_spec):
    spec = make_spec({"x": ["batch", 3]}, {"y": ["batch"]}, batch=(1, 8, 2))
    for dtype, name in DATA_TYPES.items():
        typed = spec.model_copy(update={"inputs": [spec.inputs[0].model_copy(update={"dtype": dtype})]})
        assert tensors(parsed(typed).input)["x"][0] == name


def test_settings_and_a_gpu_are_told_as_its_backend_names_them(make_spec):
    spec = make_spec({'a "name"': ["batch", 3]}, {"y": ["batch"]}, batch=(1, 8, 2))
    runtime = Runtime(
        intra_threads=4,
        execution_mode="parallel",
        inter_threads=2,
        arena=False,
        memory_pattern=False,
        graph_optimization="basic",
    )
    config = parsed(spec, runtime, "CUDAExecutionProvider")
    assert config.input[0].name == 'a "name"'
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "intra_op_thread_count": "4",
        "execution_mode": "1",
        "inter_op_thread_count": "2",
        "enable_mem_arena": "0",
        "enable_mem_pattern": "0",
    }
    assert config.optimization.graph.level == -1


def test_without_a_batch_in_front_everywhere_requests_are_passed_on_as_they_are(make_spec):
    """As for the states of an LSTM, a scalar, and a graph of nodes."""
    states = {"x": ["batch", 3], "state": [2, "batch", 3], "scale": []}
    for spec in (
        make_spec(states, {"y": ["batch", 3]}, batch=(1, 8, 2)),
        make_spec({"nodes": ["n", 3], "edges": [2, "m"]}, {"y": ["n"]}, n=(2, 8, 4), m=(1, 8, 4)),
    ):
        config = parsed(spec)
        assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    (scale,) = [
        value for value in parsed(make_spec(states, {"y": ["batch"]}, batch=(1, 8, 2))).input if value.name == "scale"
    ]
    assert list(scale.dims) == [1] and list(scale.reshape.shape) == []
