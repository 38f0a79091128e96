"""Give ONNX Runtime's settings as the parameters have them, with the provider that the stage `settings` found."""

from onnx_release.core.files import read_json
from onnx_release.core.params import Runtime
from onnx_release.core.paths import ModelFiles
from onnx_release.runtime.providers import CPU


def load_runtime(files: ModelFiles, runtime: Runtime) -> Runtime:
    """Return `runtime` with the provider found for the model: after `auto` found the CPU, no GPU is tried.

    Raises DataError if the stage `settings` has not run.
    """
    if runtime.provider == "auto" and read_json(files.provider)["provider"] == CPU:
        return runtime.model_copy(update={"provider": "cpu"})
    return runtime
