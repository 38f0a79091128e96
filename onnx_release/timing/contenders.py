"""Load what the benchmark times: PyTorch in several forms, ONNX files on ONNX Runtime, and the same on OpenVINO.

Each kind is prepared in two steps, so that the time to load leaves imports out: `prepare` imports the framework and
returns a function that loads the contender. Only a torch contender imports torch.
"""

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from onnx_release.core.hardware import available_cores
from onnx_release.core.params import Runtime
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec
from onnx_release.core.types import Arrays
from onnx_release.core.variants import ON_OPENVINO, variant_files

# Takes a batch and returns the outputs as arrays.
Call = Callable[[Arrays], list[np.ndarray]]
Kind = Literal["torch_eager", "torch_channels_last", "torch_compile", "torch_autocast", "onnx", "openvino"]


@dataclass(frozen=True)
class LoadedContender:
    """A loaded contender: its function, the provider that runs it, and the note of its OnnxModel.

    A call keeps `cores` of the machine busy: one for each thread, but on a GPU only that of the thread that calls.
    """

    call: Call
    provider: str
    cores: int
    note: str = ""


# The forms of PyTorch; the first is the base of every speed-up.
TORCH: tuple[Kind, ...] = ("torch_eager", "torch_channels_last", "torch_compile")


@dataclass(frozen=True)
class Contender:
    """A model and how to run it. `target` is the model's folder for PyTorch, and otherwise a file.

    All run on `runtime.intra_threads` threads; PyTorch on `device`, by torch's name for it.
    """

    name: str
    kind: Kind
    target: str
    raw: Path
    spec: Spec
    runtime: Runtime
    device: str = "cpu"


def all_contenders(files: ModelFiles, spec: Spec, runtime: Runtime, device: str) -> list[Contender]:
    """Return PyTorch in its forms, every variant of the pipeline, and OpenVINO if it is installed.

    Raises BenchmarkError if there is no variant at all.
    """
    found = torch_contenders(files.model, files.raw, spec, runtime, device)
    return found + onnx_contenders(variant_files(files), files.raw, spec, runtime)


def torch_contenders(
    model: str, raw: Path, spec: Spec, runtime: Runtime, device: str, kinds: tuple[Kind, ...] = TORCH
) -> list[Contender]:
    return [Contender(kind, kind, model, raw, spec, runtime, device) for kind in kinds]


def onnx_contenders(files: dict[str, Path], raw: Path, spec: Spec, runtime: Runtime) -> list[Contender]:
    """Return each file by its variant's name; those of ON_OPENVINO on OpenVINO as well, if it is installed."""
    entries = [Contender(name, "onnx", str(path), raw, spec, runtime) for name, path in files.items()]
    if importlib.util.find_spec("openvino"):
        entries += [
            Contender(f"openvino_{name}", "openvino", str(files[name]), raw, spec, runtime)
            for name in ON_OPENVINO
            if name in files
        ]
    return entries


def prepare(contender: Contender) -> Callable[[], LoadedContender]:
    """Import the contender's framework and return the function that loads it."""
    if contender.kind == "onnx":
        return prepare_onnx(contender)
    if contender.kind == "openvino":
        return prepare_openvino(contender)
    return prepare_torch(contender)


def prepare_onnx(contender: Contender) -> Callable[[], LoadedContender]:
    from onnx_release.runtime.onnx_model import OnnxModel
    from onnx_release.runtime.providers import CPU
    from onnx_release.runtime.session import find_libraries

    find_libraries(contender.runtime)

    def load() -> LoadedContender:
        model = OnnxModel(Path(contender.target), contender.spec, contender.runtime)
        cores = busy_cores(contender.runtime, on_cpu=model.provider == CPU)
        return LoadedContender(lambda batch: list(model.run(batch).values()), model.provider, cores, model.note)

    return load


def prepare_openvino(contender: Contender) -> Callable[[], LoadedContender]:
    import openvino

    def load() -> LoadedContender:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": contender.runtime.intra_threads,
            "INFERENCE_PRECISION_HINT": "f32",  # or it computes float32 files in bfloat16 where the CPU has it
        }
        model = openvino.Core().compile_model(contender.target, "CPU", settings)
        cores = busy_cores(contender.runtime, on_cpu=True)
        return LoadedContender(lambda batch: list(model(batch).values()), "OpenVINO on the CPU", cores)

    return load


def prepare_torch(contender: Contender) -> Callable[[], LoadedContender]:
    """Prepare PyTorch in inference mode. A call includes copies to the device and back; channels_last converts."""
    import torch

    from onnx_release.network.network import load_network, network_source
    from onnx_release.network.outputs import array_of

    network_source(contender.target)
    importlib.import_module("torch._dynamo")  # or a copy of the weights would import it, and so would torch.compile
    assert contender.runtime.intra_threads is not None
    torch.set_num_threads(contender.runtime.intra_threads)
    device = torch.device(contender.device)
    images = torch.channels_last if contender.kind == "torch_channels_last" else torch.contiguous_format

    def tensor_of(array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array).to(device)
        return tensor.contiguous(memory_format=images) if tensor.ndim == 4 else tensor

    def load() -> LoadedContender:
        network: Any = load_network(contender.target, contender.raw).to(device)
        if contender.kind == "torch_channels_last":
            network = network.to(memory_format=torch.channels_last)
        if contender.kind == "torch_compile":
            network = torch.compile(network)
        in_half = contender.kind == "torch_autocast"
        precision = torch.autocast(device.type, torch.float16) if in_half else nullcontext()

        def call(batch: Arrays) -> list[np.ndarray]:
            with torch.inference_mode(), precision:
                result = network(*(tensor_of(array) for array in batch.values()))
            values = [result] if isinstance(result, torch.Tensor) else result
            return [array_of(value) for value in values]  # on a GPU the copy waits for the work

        cores = busy_cores(contender.runtime, on_cpu=device.type == "cpu")
        return LoadedContender(call, f"PyTorch on {contender.device}", cores)

    return load


def busy_cores(runtime: Runtime, on_cpu: bool) -> int:
    return (runtime.intra_threads or available_cores()) if on_cpu else 1
