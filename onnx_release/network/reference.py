"""Write PyTorch's outputs in float32 and in float64, which every variant is compared with."""

import numpy as np
import torch

from onnx_release.core.array_files import writing_arrays
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
    batches = {sample_key(index): index for index in range(len(samples))}
    cases = {case_name(sizes): case_inputs(spec, sizes, samples, seed, data) for sizes in shape_cases(spec)}
    infinite: dict[str, Arrays] = {}
    # One thread, since the division of work may change the last bits, and the files must be the same everywhere.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            replacing_folder(files.reference) as partial,
            writing_arrays(partial / files.reference_samples.name) as sample_file,
            writing_arrays(partial / files.reference_cases.name) as case_file,
        ):
            for name, inputs in cases.items():
                outputs = run_network(network, spec, inputs)
                check_outputs(spec, inputs, outputs)
                case_file.add_all(f"{name}/inputs", inputs)
                infinite[name] = infinities(outputs)
                case_file.add_all(f"{name}/float32", outputs)
            for key, index in batches.items():
                outputs = run_network(network, spec, samples.batch(index))
                infinite[key] = infinities(outputs)
                sample_file.add_all(f"{key}/float32", outputs)
            without_float64: dict[str, None] = {}
            with in_float64(network):
                for name, inputs in cases.items():
                    with Float64Mode(without_float64):
                        outputs = run_network(network, spec, inputs, torch.float64)
                    check_infinities(f"the case {name}", infinite[name], infinities(outputs))
                    case_file.add_all(f"{name}/float64", outputs)
                for key, index in batches.items():
                    with Float64Mode(without_float64):
                        outputs = run_network(network, spec, samples.batch(index), torch.float64)
                    check_infinities(f"evaluation sample {index}", infinite[key], infinities(outputs))
                    sample_file.add_all(f"{key}/float64", outputs)
    finally:
        torch.set_num_threads(threads)
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
