"""Export the network to ONNX with the names and dynamic axes of its spec, if the doctor finds no error."""

import functools
import sys

from onnx_release.core.command import run_stage
from onnx_release.core.errors import ExportError
from onnx_release.core.params import Export, load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec, load_spec
from onnx_release.data.model_data import first_inputs, load_data
from onnx_release.export.choose_export import export_model
from onnx_release.export.doctor.doctor import examine, refuse_errors
from onnx_release.export.doctor.findings import Patient
from onnx_release.network.network import network_as_built


def main(model: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    params = load_params(files).export.for_model(spec.exporter, model)
    # `auto` compares every file with PyTorch: what one of them fixes is a mistake only if no other is right.
    refuse_mistakes(files, spec, params, control_flow=params.exporter != "auto")
    build = functools.partial(network_as_built, model, files.raw)
    try:
        export_model(build, spec, params, files, files.variant("export").parent).write(model)
    except ExportError:
        refuse_mistakes(files, spec, params, control_flow=True)  # the doctor has lines and fixes
        raise


def refuse_mistakes(files: ModelFiles, spec: Spec, params: Export, control_flow: bool) -> None:
    """Print the doctor's warnings. Raises ExportError for its errors."""
    network, samples = network_as_built(files.model, files.raw), first_inputs(files.model, files.raw)
    findings = examine(Patient(network, spec, params, files.folder, samples, load_data(files.model)), control_flow)
    refuse_errors(findings)
    for finding in findings:
        print(finding, file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
