"""Run PyTorch in float32 and in float64 on the evaluation samples and on the shape cases."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import EVALUATION_SAMPLES, RAW
from onnx_release.core.spec import load_spec
from onnx_release.data.samples import SampleFile
from onnx_release.network.network import load_network
from onnx_release.network.reference import write_reference


def main() -> None:
    params = load_params()
    network = load_network(params.model, RAW / params.model)
    write_reference(network, load_spec(params.model), SampleFile(EVALUATION_SAMPLES), params.reference.seed)


if __name__ == "__main__":
    run_stage(main)
