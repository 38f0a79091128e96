"""Run PyTorch in float32 and in float64 on the evaluation samples and on the shape cases."""

import sys

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import load_data
from onnx_release.network.network import load_network
from onnx_release.network.reference import write_reference


def main(model: str) -> None:
    files = ModelFiles(model)
    network, seed = load_network(model, files.raw), load_params(files).reference.seed
    for operator in write_reference(network, load_spec(model), files, seed, load_data(model)):
        print(f"note: {operator} does not run in float64: the reference has its float32 result", file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
