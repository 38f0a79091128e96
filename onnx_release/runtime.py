"""Which provider this machine runs models on: settled once, by the hardware stage, and read by every stage after it."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from onnx_release.errors import GraphError
from onnx_release.files import read_json
from onnx_release.params import Runtime
from onnx_release.paths import PROVIDER, TUNED
from onnx_release.providers import CPU, device_id
from onnx_release.session import open_with, run_bound


def find_provider(runtime: Runtime) -> dict[str, Any]:
    """artifacts/provider.json: the provider that `runtime` comes to here, and what `auto` had to do without.

    Another provider than the CPU has to run a small graph, since some libraries load with the first run alone. Raises
    ProviderError or GraphError if one that was asked for by name does not.
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


def load_runtime(runtime: Runtime) -> Runtime:
    """`runtime` as the hardware stage has settled it: where `auto` came to the CPU, nothing is tried again.

    Raises DataError if that stage has not run.
    """
    if runtime.provider == "auto" and read_json(PROVIDER)["provider"] == CPU:
        return runtime.model_copy(update={"provider": "cpu"})
    return runtime


def load_tuned() -> Runtime:
    """What the tune stage has found for the chosen variant. Raises DataError if it has not run."""
    return Runtime.model_validate(read_json(TUNED))


def small_graph(path: Path) -> Path:
    """One convolution, so that cuDNN has to load as well."""
    import onnx  # which takes time, and only the hardware stage needs
    from onnx import TensorProto, helper

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
