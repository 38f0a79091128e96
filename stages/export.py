"""Export the network to ONNX with the names and dynamic axes of its spec, if the doctor finds no error."""

import sys

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import first_inputs
from onnx_release.export.doctor.doctor import examine, refuse_errors
from onnx_release.export.export import export_metrics, export_network
from onnx_release.network.network import network_as_built


def main(model: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    params, network = load_params(files).export, network_as_built(model, files.raw)
    findings = examine(network, spec, params, files.folder, first_inputs(model, files.raw))
    refuse_errors(findings)
    for finding in findings:
        print(finding, file=sys.stderr)
    path = files.variant("export")
    export_network(network, spec, params, path.parent)
    export_metrics(path, params).write(model)


if __name__ == "__main__":
    run_stage(main)
