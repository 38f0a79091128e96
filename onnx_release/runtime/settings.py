"""ONNX Runtime's settings as params.yaml has them, with the provider that the hardware stage found."""

from onnx_release.core.files import read_json
from onnx_release.core.params import Runtime
from onnx_release.core.paths import PROVIDER
from onnx_release.runtime.providers import CPU


def load_runtime(runtime: Runtime) -> Runtime:
    """Return `runtime` with the provider that the hardware stage found: after `auto` found the CPU, no GPU is tried.

    Raises DataError if that stage has not run.
    """
    if runtime.provider == "auto" and read_json(PROVIDER)["provider"] == CPU:
        return runtime.model_copy(update={"provider": "cpu"})
    return runtime
