"""Export the network to ONNX with the names and dynamic axes of its spec."""

from onnx_release.command import run_stage
from onnx_release.export import export_metrics, export_network
from onnx_release.files import write_json
from onnx_release.network import load_network
from onnx_release.params import load_params
from onnx_release.paths import METRICS, RAW, variant_model
from onnx_release.spec import load_spec


def main() -> None:
    params = load_params()
    network = load_network(params.model, RAW / params.model)
    path = variant_model("export")
    export_network(network, load_spec(params.model), params.export, path.parent)
    write_json(METRICS / "export.json", export_metrics(path, params.export))


if __name__ == "__main__":
    run_stage(main)
