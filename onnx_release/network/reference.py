"""Write PyTorch's outputs in float32 and in float64, which every variant is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from onnx_release.core.array_files import ArrayWriter, writing_arrays
from onnx_release.core.errors import NetworkError
from onnx_release.core.files import replacing_folder
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec
from onnx_release.core.types import Arrays
from onnx_release.data.model_data import ModelData
from onnx_release.data.samples import SampleFile, sample_key
from onnx_release.network.float64 import Float64Mode, in_float64
from onnx_release.network.network import check_outputs, run_network
from onnx_release.network.shape_cases import case_inputs, case_name, shape_cases


@dataclass(frozen=True)
class Run:
    """What the network is run on: the inputs of a shape case, or the evaluation sample of an index.

    `shown` names it in messages, and `key` in the `file` that takes its outputs.
    """

    shown: str
    key: str
    file: ArrayWriter
    given: Arrays | int

    @property
    def is_case(self) -> bool:
        """Return whether it is a shape case."""
        return not isinstance(self.given, int)

    def inputs(self, samples: SampleFile) -> Arrays:
        """Return its inputs, a sample being a batch of one."""
        return samples.batch(self.given) if isinstance(self.given, int) else self.given


def write_reference(
    network: torch.nn.Module, spec: Spec, files: ModelFiles, seed: int, data: ModelData | None = None
) -> list[str]:
    """Write the folder `files.reference`: the evaluation samples, each a batch of one, and the shape cases.

    `data` may have examples() for the shape cases. Keys are KEY/float32/OUTPUT and KEY/float64/OUTPUT; the shape cases
    also have KEY/inputs/INPUT. The first are of the network as it is, the second of `onnx_release.network.float64`,
    which converts the weights in place; at the end they are as before. Returns the operators that failed in float64 and
    ran in float32 instead. Raises NetworkError if the network gives NaN, or infinity in only one of both, or if it
    contradicts the spec.
    """
    samples = SampleFile(files.evaluation_samples)
    cases = {case_name(sizes): case_inputs(spec, sizes, samples, seed, data) for sizes in shape_cases(spec)}
    # One thread, since the division of work may change the last bits, and the files must be the same everywhere.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            replacing_folder(files.reference) as partial,
            writing_arrays(partial / files.reference_samples.name) as sample_file,
            writing_arrays(partial / files.reference_cases.name) as case_file,
        ):
            runs = [Run(f"the case {name}", name, case_file, inputs) for name, inputs in cases.items()]
            runs += [
                Run(f"evaluation sample {index}", sample_key(index), sample_file, index)
                for index in range(len(samples))
            ]
            infinite = write_float32(network, spec, runs, samples)
            return write_float64(network, spec, runs, samples, infinite)
    finally:
        torch.set_num_threads(threads)


def write_float32(network: torch.nn.Module, spec: Spec, runs: Sequence[Run], samples: SampleFile) -> dict[str, Arrays]:
    """Write the outputs in float32 of each run, and the inputs of the shape cases; return `infinities` by key."""
    infinite: dict[str, Arrays] = {}
    for run in runs:
        inputs = run.inputs(samples)
        outputs = run_network(network, spec, inputs)
        if run.is_case:
            check_outputs(spec, inputs, outputs)
            run.file.add_all(f"{run.key}/inputs", inputs)
        infinite[run.key] = infinities(outputs)
        run.file.add_all(f"{run.key}/float32", outputs)
    return infinite


def write_float64(
    network: torch.nn.Module, spec: Spec, runs: Sequence[Run], samples: SampleFile, infinite: Mapping[str, Arrays]
) -> list[str]:
    """Write the outputs in float64 of each run, and return the operators that ran in float32 instead.

    `infinite` has the infinities in float32 by key. Raises NetworkError if they are elsewhere.
    """
    without_float64: dict[str, None] = {}
    with in_float64(network):
        for run in runs:
            with Float64Mode(without_float64):
                outputs = run_network(network, spec, run.inputs(samples), torch.float64)
            check_infinities(run.shown, infinite[run.key], infinities(outputs))
            run.file.add_all(f"{run.key}/float64", outputs)
    return list(without_float64)


def infinities(outputs: Arrays) -> Arrays:
    """Return where each output with infinity has it: int8 arrays of 1, -1 and, where it is finite, 0."""
    floats = {name: array for name, array in outputs.items() if array.dtype.kind == "f" and np.isinf(array).any()}
    return {name: np.isposinf(array).astype(np.int8) - np.isneginf(array) for name, array in floats.items()}


def check_infinities(case: str, float32: Arrays, float64: Arrays) -> None:
    """Raise NetworkError if an output has infinity elsewhere in one precision than in the other: see `infinities`.

    Outputs whose shapes differ, as a size that depends on values may, are not compared.
    """
    finite = np.zeros((), np.int8)
    for name in {**float32, **float64}:
        one, other = float32.get(name, finite), float64.get(name, finite)
        if name in float32 and name in float64 and one.shape != other.shape:
            continue
        bad = np.asarray(one != other)
        if bad.any():
            raise NetworkError(
                f"{bad.sum()} of the {bad.size} values of the output {name} are infinite in only one of float32 and "
                f"float64, in {case}: float32 overflows there, or rounds to 0 before a logarithm or a division. Use a "
                "function that does not, such as log_softmax in place of the log of a softmax, or look at the weights "
                "and at the inputs from data.py"
            )
