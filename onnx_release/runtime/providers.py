"""Find out about ONNX Runtime's execution providers: their options, whether they load, and which nodes they run."""

import ctypes
import io
from contextlib import redirect_stdout
from pathlib import Path

import onnxruntime

from onnx_release.core.errors import ProviderError
from onnx_release.core.params import Runtime
from onnx_release.core.plain_text import first_few

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROVIDERS = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


def provider_options(provider: str, runtime: Runtime) -> dict[str, str]:
    """Return the options of the provider under ONNX Runtime's names."""
    if provider == CUDA:
        options = {key: str(value) for key, value in runtime.cuda.model_dump().items() if value is not None}
        options["use_tf32"] = str(int(runtime.cuda.use_tf32))
    elif provider == TENSORRT:
        settings = runtime.tensorrt
        options = {
            "device_id": str(settings.device_id),
            "trt_max_workspace_size": str(settings.workspace),
            "trt_fp16_enable": str(settings.fp16),
            "trt_int8_enable": str(settings.int8),
        }
        if settings.engine_cache:
            options |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": settings.engine_cache}
    else:
        options = {}
    return options


def device_id(provider: str, runtime: Runtime) -> int:
    """Return the number of the GPU that the provider runs on."""
    return (runtime.tensorrt if provider == TENSORRT else runtime.cuda).device_id


def check_provider(provider: str) -> None:
    """Load pip's CUDA libraries and the provider's own. Raises ProviderError if one is missing."""
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise ProviderError(
            f"runtime.provider asks for {provider}, which this onnxruntime does not have ({', '.join(available)}): "
            "install onnxruntime-gpu, or choose auto or cpu"
        )
    with redirect_stdout(io.StringIO()):  # it prints what it does not find; errors are raised below
        onnxruntime.preload_dlls()
    missing = missing_library(provider)
    if missing:
        raise ProviderError(
            f"runtime.provider asks for {provider}, which does not load: {missing}. "
            "Install the library (the NVIDIA packages of torch's CUDA build have CUDA and cuDNN), "
            "or choose auto or cpu"
        )


def missing_library(provider: str) -> str | None:
    """Return the loader's message, with the first missing library, if the provider's does not load, else None."""
    name = provider.removesuffix("ExecutionProvider").lower()
    folder = Path(onnxruntime.__file__).parent / "capi"
    libraries = sorted(folder.glob(f"*onnxruntime_providers_{name}.*"))
    if not libraries:
        # Without the machine's own folders, since tools.gpu_check keeps it in a file of the repository.
        return f"onnxruntime/capi has no onnxruntime_providers_{name}"
    try:
        # It needs symbols of this one, which ONNX Runtime also loads first.
        for shared in folder.glob("*onnxruntime_providers_shared.*"):
            ctypes.CDLL(str(shared), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(libraries[0]))
    except OSError as cause:
        return str(cause)
    return None


def nodes_elsewhere(session: onnxruntime.InferenceSession, wanted: str) -> str:
    """Describe the nodes that ONNX Runtime gave to another provider than `wanted`; empty if there are none.

    The session must have been opened with session.record_ep_graph_assignment_info.
    """
    elsewhere = [
        f"{node.name} ({node.op_type})"
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != wanted
        for node in part.get_nodes()
    ]
    return first_few(elsewhere, 5)
