"""Write PyTorch's outputs in float32 and in float64, which every variant is compared with."""

import torch

from onnx_release.core.array_files import writing_arrays
from onnx_release.core.files import replacing_folder
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec
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
    ran in float32 instead. Raises NetworkError if the network gives NaN or contradicts the spec.
    """
    samples = SampleFile(files.evaluation_samples)
    batches = {sample_key(index): index for index in range(len(samples))}
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
            for name, inputs in cases.items():
                outputs = run_network(network, spec, inputs)
                check_outputs(spec, inputs, outputs)
                case_file.add_all(f"{name}/inputs", inputs)
                case_file.add_all(f"{name}/float32", outputs)
            for key, index in batches.items():
                outputs = run_network(network, spec, samples.batch(index))
                sample_file.add_all(f"{key}/float32", outputs)
            without_float64: dict[str, None] = {}
            with in_float64(network):
                for name, inputs in cases.items():
                    with Float64Mode(without_float64):
                        outputs = run_network(network, spec, inputs, torch.float64)
                    case_file.add_all(f"{name}/float64", outputs)
                for key, index in batches.items():
                    with Float64Mode(without_float64):
                        outputs = run_network(network, spec, samples.batch(index), torch.float64)
                    sample_file.add_all(f"{key}/float64", outputs)
    finally:
        torch.set_num_threads(threads)
    return list(without_float64)
