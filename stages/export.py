"""Export the network to ONNX with the names and dynamic axes of its spec, if the doctor finds no error."""

import sys

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import MODELS, RAW, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.export.doctor.doctor import examine, refuse_errors
from onnx_release.export.export import export_metrics, export_network
from onnx_release.network.network import network_as_built


def main() -> None:
    params = load_params()
    spec = load_spec(params.model)
    network = network_as_built(params.model, RAW / params.model)
    findings = examine(network, spec, params.export, MODELS / params.model)
    refuse_errors(findings)
    for finding in findings:
        print(finding, file=sys.stderr)
    path = variant_model("export")
    export_network(network, spec, params.export, path.parent)
    export_metrics(path, params.export).write()


if __name__ == "__main__":
    run_stage(main)
