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
from onnx_release.export.doctor.findings import Finding
from onnx_release.network.network import network_as_built


def main(model: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    params = load_params(files).export.for_model(spec.exporter, model)
    findings = find_mistakes(files, spec, params)
    refuse_errors([finding for finding in findings if not finding.settled_by_export])
    build = functools.partial(network_as_built, model, files.raw)
    try:
        export_model(build, spec, params, files, files.variant("export").parent).write(model)
    except ExportError:
        refuse_errors(findings)  # they have lines and fixes
        raise


def find_mistakes(files: ModelFiles, spec: Spec, params: Export) -> list[Finding]:
    """Return the doctor's findings, and print those that are no errors."""
    network, examples = network_as_built(files.model, files.raw), first_inputs(files.model, files.raw)
    findings = examine(network, spec, params, files.folder, examples, load_data(files.model))
    for finding in findings:
        if finding.level == "warning":
            print(finding, file=sys.stderr)
    return findings


if __name__ == "__main__":
    run_stage(main)
