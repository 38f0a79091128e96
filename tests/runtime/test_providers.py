"""Options under ONNX Runtime's names, what a provider lacks, and the nodes that it leaves to others."""

import onnxruntime
import pytest
from onnx import helper

from onnx_release.core.errors import ProviderError
from onnx_release.core.params import Cuda, Runtime, TensorRt
from onnx_release.runtime import providers
from onnx_release.runtime.providers import CPU, CUDA, TENSORRT, check_provider, missing_library, nodes_elsewhere
from onnx_release.runtime.providers import provider_options as options


def test_cuda_takes_its_options():
    cuda = Cuda(
        device_id=1, arena_extend_strategy="kSameAsRequested", gpu_mem_limit=2**30, cudnn_conv_algo_search="HEURISTIC"
    )
    assert options(CUDA, Runtime(cuda=cuda)) == {
        "device_id": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": "1073741824",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
    }
    assert options(CUDA, Runtime(cuda=Cuda(use_tf32=True)))["use_tf32"] == "1"
    assert "gpu_mem_limit" not in options(CUDA, Runtime())


def test_tensorrt_takes_its_options():
    assert options(TENSORRT, Runtime(tensorrt=TensorRt(device_id=2, workspace=7, fp16=True, engine_cache="cache"))) == {
        "device_id": "2",
        "trt_max_workspace_size": "7",
        "trt_fp16_enable": "True",
        "trt_int8_enable": "False",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "cache",
    }
    assert "trt_engine_cache_enable" not in options(TENSORRT, Runtime())


def test_the_cpu_has_none():
    assert options(CPU, Runtime()) == {}


def test_a_provider_that_this_build_lacks_is_named():
    with pytest.raises(ProviderError, match=r"does not have .*CPUExecutionProvider.*: install onnxruntime-gpu"):
        check_provider("OtherExecutionProvider")


@pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="there is no GPU build for this system")
def test_a_library_that_is_missing_is_named(monkeypatch, capfd):
    monkeypatch.setattr(providers, "missing_library", lambda _: "libcudnn.so.9: cannot open shared object file")
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider, which does not load: libcudnn\.so\.9.*Install"):
        check_provider(CUDA)
    assert capfd.readouterr() == ("", "")


def test_a_provider_without_a_library_is_said_to_be_missing():
    found = missing_library("OtherExecutionProvider")
    assert found == "onnxruntime/capi has no onnxruntime_providers_other"


def test_nodes_elsewhere_are_named_and_counted(save_graph):
    nodes = [helper.make_node("Neg", [f"v{i}"], [f"v{i + 1}"], name=f"n{i}") for i in range(7)]
    path = save_graph(nodes, [("v0", ["n"])], [("v7", ["n"])])
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(str(path), settings, providers=[CPU])
    assert nodes_elsewhere(session, CPU) == ""
    assert nodes_elsewhere(session, CUDA) == "n0 (Neg), n1 (Neg), n2 (Neg), n3 (Neg), n4 (Neg) and 2 more"
