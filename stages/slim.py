"""Slim the export with onnxslim, and check that its answers stay the same."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.export.slim import slim_metrics, slim_model


def main(model: str) -> None:
    files = ModelFiles(model)
    before, after = files.variant("export"), files.variant("fp32")
    slim_model(before, files.reference_cases, load_params(files).slim, after.parent)
    slim_metrics(before, after).write(model)


if __name__ == "__main__":
    run_stage(main)
