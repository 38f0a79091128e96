"""Write PyTorch's outputs in float32 and in float64, which every variant is compared with."""

import torch

from onnx_release.core.array_files import writing_arrays
from onnx_release.core.files import replacing_folder
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec
from onnx_release.data.model_data import ModelData
from onnx_release.data.samples import SampleFile, sample_key
from onnx_release.network.network import check_outputs, run_network
from onnx_release.network.shape_cases import case_inputs, case_name, shape_cases


def write_reference(
    network: torch.nn.Module, spec: Spec, files: ModelFiles, seed: int, data: ModelData | None = None
) -> None:
    """Write the folder `files.reference`: the evaluation samples, each a batch of one, and the shape cases.

    `data` may have examples() for the shape cases.

    Keys are KEY/float32/OUTPUT and KEY/float64/OUTPUT; the shape cases also have KEY/inputs/INPUT. The network is
    converted in place and is back in float32 at the end. Raises NetworkError if it gives NaN or contradicts the spec.
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
            for dtype in (torch.float32, torch.float64):
                network.to(dtype)
                kind = str(dtype).removeprefix("torch.")
                for name, inputs in cases.items():
                    outputs = run_network(network, spec, inputs, dtype)
                    if dtype is torch.float32:
                        check_outputs(spec, inputs, outputs)
                        case_file.add_all(f"{name}/inputs", inputs)
                    case_file.add_all(f"{name}/{kind}", outputs)
                for key, index in batches.items():
                    outputs = run_network(network, spec, samples.batch(index), dtype)
                    sample_file.add_all(f"{key}/{kind}", outputs)
    finally:
        torch.set_num_threads(threads)
        network.to(torch.float32)
