"""Try the conversion itself, in a temporary folder."""

import tempfile
from pathlib import Path

from onnx_release.core.command import no_space
from onnx_release.core.errors import ReleaseError
from onnx_release.core.files import read_json
from onnx_release.core.params import Export
from onnx_release.core.paths import MODEL_FILE, SOURCES_FILE
from onnx_release.export.doctor.doctor import in_eval_mode
from onnx_release.export.doctor.findings import Finding, Patient, first_line, place_in
from onnx_release.export.export import export_network
from onnx_release.export.opsets import newer_operators
from onnx_release.graph.graph import load_model

# The opset that torch.onnx's dynamo exporter builds before it converts down.
BUILT = 18


def examine_conversion(patient: Patient) -> list[Finding]:
    """Find what prevents the conversion by the exporter and to the opset of the parameters."""
    params = patient.params
    built = params.model_copy(update={"opset": BUILT})
    older = params.exporter == "dynamo" and params.opset != "auto" and params.opset < BUILT
    with in_eval_mode(patient.network), tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "export"
        found = try_export(patient, built if older else params, folder)
        if found or not older:
            return found
        asked = int(params.opset)
        newer = newer_operators(load_model(folder / MODEL_FILE), asked, read_json(folder / SOURCES_FILE))
        if newer:
            return [
                Finding(
                    "error",
                    f"opset {params.opset} is too low: {problem}",
                    line or patient.home(),
                    f"set export.opset to {needed} or higher, or try export.exporter=torchscript",
                )
                for problem, line, needed in newer
            ]
        return try_export(patient, params, folder)


def try_export(patient: Patient, params: Export, folder: Path) -> list[Finding]:
    """Export to `folder`, and return the error as a finding, if there is one."""
    try:
        export_network(patient.network, patient.spec, params, folder)
    except Exception as cause:  # a ReleaseError, or anything that torch raises
        if no_space(cause):
            raise
        rest = " ".join(str(cause).strip().splitlines()[1:])
        return [
            Finding(
                "error",
                first_line(cause)
                if isinstance(cause, ReleaseError)
                else f"{type(cause).__name__}: {first_line(cause)}",
                place_in(cause) or patient.home(),
                rest or f"change this part of the network, or try export.exporter={params.other_exporter}",
            )
        ]
    return []
