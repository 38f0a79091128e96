"""Run a model with checked inputs and without torch: validation, benchmark, profile and server all do it this way."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from onnx_release.core.errors import GraphError, InputError
from onnx_release.core.hardware import cpu_kind
from onnx_release.core.params import Runtime
from onnx_release.core.spec import Spec, check_bounds, check_inputs
from onnx_release.runtime.providers import CPU, device_id
from onnx_release.runtime.session import open_with, run_bound, run_session

# ONNX Runtime's names for dtypes that have another name in the spec.
ORT_NAMES = {"float32": "float"}
# The key in an ONNX file's metadata for the CPU that its graph was optimised for (onnx_release/performance).
CPU_KEY = "onnx_release.cpu"


class OnnxModel:
    """A model of `spec`, ready to run; any number of threads may call `run` at once.

    `provider` is ONNX Runtime's name of the provider, and `note` says why `auto` does not use the GPU. With `profile`,
    ONNX Runtime writes its trace to a file whose path starts with it.
    Raises GraphError if ONNX Runtime does not load the model, if its inputs or outputs are not those of the spec, or if
    it was optimised for another CPU, and ProviderError if the provider in `runtime` does not run all of it.
    """

    def __init__(self, path: Path, spec: Spec, runtime: Runtime, profile: Path | None = None) -> None:
        self.spec = spec
        opened = open_with(path, runtime, profile)
        self.session, self.provider, self.note = opened.session, opened.provider, opened.note
        self.device_id = device_id(self.provider, runtime)
        check_interface(self.session, spec, path)
        check_cpu(self.session, path)

    def run(
        self, inputs: Mapping[str, np.ndarray], options: onnxruntime.RunOptions | None = None
    ) -> dict[str, np.ndarray]:
        """Run the model and return all outputs by name, in the dtypes and shapes of the spec, batch axis included.

        Raises InputError if `inputs` contradicts the spec, and GraphError if ONNX Runtime fails on it, or if another
        thread has set `options.terminate`, which belong to this run alone.
        """
        check_request(self.spec, inputs)
        if self.provider == CPU:
            return run_session(self.session, inputs, options)
        return run_bound(self.session, inputs, "cuda", self.device_id, options)


def check_request(spec: Spec, inputs: Mapping[str, np.ndarray]) -> None:
    """Raise InputError if an input is missing, unknown, or of another dtype or shape than declared."""
    names = [tensor.name for tensor in spec.inputs]
    unknown = sorted(set(inputs) - set(names))
    missing = [name for name in names if name not in inputs]
    if unknown or missing:
        parts = [f"{', '.join(missing)} missing"] if missing else []
        parts += [f"{', '.join(unknown)} unknown"] if unknown else []
        raise InputError(f"the model takes {', '.join(names)}: {' and '.join(parts)}")
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{name} is a {type(array).__name__}, not a numpy array")
    sizes: dict[str, int] = {}
    problem = check_inputs(spec, inputs, sizes) or check_bounds(spec, sizes)
    if problem:
        raise InputError(problem)


def check_interface(session: onnxruntime.InferenceSession, spec: Spec, path: Path) -> None:
    """Raise GraphError if the file's inputs or outputs have other names, dtypes or shapes than the spec's."""
    for kind, found, declared in (
        ("inputs", session.get_inputs(), spec.inputs),
        ("outputs", session.get_outputs(), spec.outputs),
    ):
        values = {value.name: value for value in found}
        if set(values) != {tensor.name for tensor in declared}:
            raise GraphError(
                f"{path} has the {kind} {', '.join(values)}, "
                f"where the spec declares {', '.join(tensor.name for tensor in declared)}"
            )
        for tensor in declared:
            value = values[tensor.name]
            if value.type != f"tensor({ORT_NAMES.get(tensor.dtype, tensor.dtype)})":
                raise GraphError(f"{tensor.name} of {path} is a {value.type}, where the spec declares {tensor.dtype}")
            if not may_have(value.shape, tensor.shape):
                raise GraphError(
                    f"{tensor.name} of {path} has the shape {value.shape}, where the spec declares {tensor.shape}"
                )


def may_have(found: Sequence[int | str | None], declared: Sequence[int | str]) -> bool:
    """Return whether the shape in a file allows every shape that the spec declares.

    A file may leave a size open, and ONNX Runtime gives an empty shape if the file has none.
    """
    if not found:
        return True
    if len(found) != len(declared):
        return False
    return all(not isinstance(size, int) or size == axis for size, axis in zip(found, declared, strict=True))


def check_cpu(session: onnxruntime.InferenceSession, path: Path) -> None:
    """Raise GraphError for a graph that was optimised for another CPU or another version of ONNX Runtime."""
    marked = session.get_modelmeta().custom_metadata_map.get(CPU_KEY)
    if marked is None:
        return
    made_for, here = json.loads(marked), cpu_kind()
    different = [key for key in here if made_for.get(key) != here[key]]
    if different:
        parts = [f"{key} {made_for.get(key)} there and {here[key]} here" for key in different]
        raise GraphError(
            f"{path} was optimised for another machine ({'; '.join(parts)}): run the model that it was made from, "
            "or run the stage optimize here"
        )
