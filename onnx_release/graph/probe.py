"""Find the provider that this machine runs models on, by running a small graph."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnx_release.core.errors import GraphError
from onnx_release.core.params import Runtime
from onnx_release.runtime.providers import CPU, device_id
from onnx_release.runtime.session import open_with, run_bound


def find_provider(runtime: Runtime) -> dict[str, Any]:
    """Return artifacts/NAME/provider.json: the provider for `runtime` here, and a note why `auto` does not use the GPU.

    A provider other than the CPU must run a small graph, since some libraries load only with the first run. Raises
    ProviderError or GraphError if a provider named in `runtime` does not.
    """
    with tempfile.TemporaryDirectory() as folder:
        opened = open_with(small_graph(Path(folder) / "model.onnx"), runtime)
        if opened.provider != CPU:
            try:
                inputs = {"x": np.ones((1, 3, 8, 8), np.float32)}
                run_bound(opened.session, inputs, "cuda", device_id(opened.provider, runtime))
            except GraphError as error:
                if runtime.provider != "auto":
                    raise
                return {"provider": CPU, "note": f"the GPU is not used: {error}"}
    return {"provider": opened.provider, "note": opened.note}


def small_graph(path: Path) -> Path:
    """Write a graph of one convolution, so that cuDNN has to load too."""
    shape: list[int | str] = ["batch", 3, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("w", TensorProto.FLOAT, [3, 3, 1, 1], np.ones(9, np.float32))],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
