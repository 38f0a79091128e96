"""Open and run an ONNX model with ONNX Runtime, with given settings or, for the pipeline's own checks, on the CPU."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime import ExecutionMode, GraphOptimizationLevel

from onnx_release.core.errors import GraphError, ProviderError, StorageError
from onnx_release.core.hardware import available_cores, gpus
from onnx_release.core.params import Runtime
from onnx_release.runtime.providers import CPU, CUDA, PROVIDERS, check_provider, nodes_elsewhere, provider_options

GRAPH_OPTIMIZATIONS = {
    "disabled": GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": GraphOptimizationLevel.ORT_ENABLE_ALL,
}
SILENT = 4  # ONNX Runtime logs only fatal errors at this severity
EXECUTION_MODES = {"sequential": ExecutionMode.ORT_SEQUENTIAL, "parallel": ExecutionMode.ORT_PARALLEL}


@dataclass(frozen=True)
class Opened:
    """A session and its provider; `note` says why the GPU is not used or which nodes run elsewhere, or is empty."""

    session: onnxruntime.InferenceSession
    provider: str
    note: str = ""


def open_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open a session on the CPU with ONNX Runtime's defaults; `threads` 0 means every core.

    Raises GraphError if ONNX Runtime does not load the model.
    """
    return open_with(path, Runtime(provider="cpu", intra_threads=threads or None)).session


def open_bytes(model: bytes, weights: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Do the same as `open_session` for a model in memory whose weights are in files of the folder `weights`.

    It is for a few runs of a large model: packed copies of the weights would cost more memory than they save time.
    """
    options = session_options(Runtime(provider="cpu", intra_threads=threads or None))
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    options.add_session_config_entry("session.disable_prepacking", "1")
    return create_session(model, options, [CPU])


def open_with(model: Path, runtime: Runtime, profile: Path | None = None) -> Opened:
    """Open a session with the settings `runtime`. `auto` uses CUDA if an NVIDIA GPU is there and runs the model.

    With `profile`, ONNX Runtime writes its trace to a file whose path starts with it.

    Raises ProviderError if a provider named in `runtime` does not load or leaves nodes to another one, and GraphError
    if ONNX Runtime does not load the model.
    """
    if runtime.provider != "auto":
        wanted = PROVIDERS[runtime.provider]
        opened = open_on(model, runtime, wanted, profile)
        if opened.note:
            raise ProviderError(f"{opened.note}: change these operators, or set runtime.provider to auto or cpu")
        return opened
    if not gpus():
        return open_on(model, runtime, CPU, profile)
    try:
        return open_on(model, runtime, CUDA, profile)
    except (ProviderError, GraphError) as error:
        return replace(open_on(model, runtime, CPU, profile), note=f"the GPU is not used: {error}")


def find_libraries(runtime: Runtime) -> None:
    """Look for GPUs and load the provider's libraries, so that the first session does not wait for them.

    A missing library is an error only when a session is opened.
    """
    if runtime.provider != "cpu" and (runtime.provider != "auto" or gpus()):
        with suppress(ProviderError):
            check_provider(PROVIDERS.get(runtime.provider, CUDA))


def open_on(model: Path, runtime: Runtime, provider: str, profile: Path | None = None) -> Opened:
    """Open a session on one provider; the note names the nodes that run elsewhere."""
    options = session_options(runtime, profile)
    if provider == CPU:
        return Opened(create_session(model, options, [CPU]), CPU)
    check_provider(provider)
    # cuDNN logs every failed plan as an error. Real errors are raised, as for the log of the session.
    onnxruntime.set_default_logger_severity(SILENT)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = create_session(model, options, [(provider, provider_options(provider, runtime))])
    if provider not in session.get_providers():
        raise ProviderError(f"{provider} does not start on this machine: ONNX Runtime uses {session.get_providers()}")
    elsewhere = nodes_elsewhere(session, provider)
    return Opened(session, provider, f"{provider} does not run {elsewhere}" if elsewhere else "")


def create_session(
    model: Path | bytes, options: onnxruntime.SessionOptions, providers: list[Any]
) -> onnxruntime.InferenceSession:
    """Open a session on a file or on its content. Raises GraphError if ONNX Runtime does not load the model."""
    given, name = (model, "a model in memory") if isinstance(model, bytes) else (str(model), str(model))
    try:
        # Without this, a run that fails on another provider is repeated on the CPU without an error.
        return onnxruntime.InferenceSession(given, options, providers=providers, enable_fallback=0)
    except Exception as cause:  # ONNX Runtime's exceptions share no base class
        raise GraphError(f"ONNX Runtime {onnxruntime.__version__} does not load {name}: {cause}") from cause


def save_optimized(model: Path, written: Path, runtime: Runtime) -> None:
    """Write the optimised graph that ONNX Runtime makes from `model` for this CPU.

    Raises GraphError if ONNX Runtime does not load `model`, and StorageError if the disk is full.
    """
    options = session_options(runtime)
    options.optimized_model_filepath = str(written)
    try:
        create_session(model, options, [CPU])
    except GraphError as cause:  # of a full disk ONNX Runtime says "Protobuf serialization failed"
        if shutil.disk_usage(written.parent).free < model.stat().st_size:
            raise StorageError(f"no space left while writing {written}: free some and run it again") from cause
        raise


def session_options(runtime: Runtime, profile: Path | None = None) -> onnxruntime.SessionOptions:
    """Return ONNX Runtime's options for `runtime`, with threads for the cores that a container may use.

    ONNX Runtime itself would count the host's cores (onnxruntime#29688).
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT  # errors are raised
    options.graph_optimization_level = GRAPH_OPTIMIZATIONS[runtime.graph_optimization]
    options.execution_mode = EXECUTION_MODES[runtime.execution_mode]
    options.intra_op_num_threads = runtime.intra_threads or available_cores()
    options.inter_op_num_threads = runtime.inter_threads or available_cores()
    options.enable_cpu_mem_arena = runtime.arena
    options.enable_mem_pattern = runtime.memory_pattern
    spinning = "1" if runtime.spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    options.add_session_config_entry("session.set_denormal_as_zero", "1" if runtime.denormals_as_zero else "0")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return options


def run_session(
    session: onnxruntime.InferenceSession,
    inputs: Mapping[str, np.ndarray],
    options: onnxruntime.RunOptions | None = None,
) -> dict[str, np.ndarray]:
    """Run a session and return all outputs by name. Raises GraphError with ONNX Runtime's reason if the run fails.

    It also fails soon after another thread has set `options.terminate`: ONNX Runtime looks at that between two nodes.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(inputs), options), strict=True))
    except Exception as cause:  # as above
        raise failed_run(inputs, cause) from cause


def run_bound(
    session: onnxruntime.InferenceSession,
    inputs: Mapping[str, np.ndarray],
    device: str,
    device_id: int,
    options: onnxruntime.RunOptions | None = None,
) -> dict[str, np.ndarray]:
    """Do the same as `run_session`, but keep the outputs on the device until all are there, and copy them at once."""
    names = [output.name for output in session.get_outputs()]
    try:
        binding = session.io_binding()  # one for each call, since two threads must not share it
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in names:
            binding.bind_output(name, device, device_id)
        session.run_with_iobinding(binding, options)
        return dict(zip(names, binding.copy_outputs_to_cpu(), strict=True))
    except Exception as cause:  # as above
        raise failed_run(inputs, cause) from cause


def failed_run(inputs: Mapping[str, np.ndarray], cause: Exception) -> GraphError:
    """Return the error for a run that failed, with the shapes of the inputs."""
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
    return GraphError(f"the model fails on {shapes}: {cause}")
