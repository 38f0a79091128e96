"""Look for the usual mistakes in a network that is to be exported, and show each with its line and a fix.

Exits with code 1 if one of them is an error.
"""

import argparse
import sys

from onnx_release.core.command import run_tool
from onnx_release.core.model_list import load_models
from onnx_release.core.params import merge_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.fetch import ensure_sources
from onnx_release.data.model_data import first_inputs, load_data
from onnx_release.export.doctor.convert import examine_conversion
from onnx_release.export.doctor.doctor import double_inputs, examine
from onnx_release.export.doctor.findings import Finding, Patient, unexamined
from onnx_release.export.doctor.lines import function_line
from onnx_release.network.network import network_as_built


def main(arguments: argparse.Namespace) -> None:
    findings = diagnose(ModelFiles(arguments.model or load_models()[0]))
    for finding in findings:
        print(finding)
    if not findings:
        print("nothing found")
    if any(finding.level == "error" for finding in findings):
        sys.exit(1)


def diagnose(files: ModelFiles) -> list[Finding]:
    """Return all findings on a model: network, inputs and conversion.

    Its sources are fetched if they are missing or differ from the spec.
    """
    spec, folder = load_spec(files.model), files.folder
    params = merge_params(files).export
    ensure_sources(files.model, spec.sources, files.raw)
    network, samples = network_as_built(files.model, files.raw), first_inputs(files.model, files.raw)
    data = load_data(files.model) if (folder / "data.py").is_file() else None
    patient = Patient(network, spec, params, folder, samples, data)
    findings = [*examine(patient), *sample_findings(patient, files)]
    known = {finding.where for finding in findings if finding.level == "error"}
    # A mistake that was found already is not shown again in the exporter's words.
    findings += [finding for finding in examine_conversion(patient) if finding.where not in known]
    return sorted(findings, key=lambda finding: finding.level)


def sample_findings(patient: Patient, files: ModelFiles) -> list[Finding]:
    """Return the findings on the first sample of data.py; none if there is no data.py."""
    path = patient.folder / "data.py"
    if not path.is_file():
        return []
    try:
        samples = load_data(files.model).samples(files.raw, "evaluation")
        inputs = next(iter(samples)).inputs
    except Exception as cause:  # from the user's own code; the stage prepare reports it in full
        return [unexamined(patient, "the samples of data.py", cause)]
    return double_inputs(inputs, function_line(path, "preprocess"))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument(
        "model", nargs="?", help="a folder below models/, listed or not; by default the first that models.yaml lists"
    )
    return made


if __name__ == "__main__":
    run_tool(main, parser())
