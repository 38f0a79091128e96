"""Run PyTorch in float32 and in float64 on the evaluation samples and on the shape cases."""

from onnx_release.command import run_stage
from onnx_release.network import load_network
from onnx_release.params import load_params
from onnx_release.paths import EVALUATION, RAW
from onnx_release.reference import write_reference
from onnx_release.samples import SampleFile
from onnx_release.spec import load_spec


def main() -> None:
    params = load_params()
    network = load_network(params.model, RAW / params.model)
    write_reference(network, load_spec(params.model), SampleFile(EVALUATION), params.reference.seed)


if __name__ == "__main__":
    run_stage(main)
