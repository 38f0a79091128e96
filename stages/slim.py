"""Slim the export with onnxslim, and check that its answers stay the same."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import REFERENCE_CASES, variant_model
from onnx_release.export.slim import slim_metrics, slim_model


def main() -> None:
    before, after = variant_model("export"), variant_model("fp32")
    slim_model(before, REFERENCE_CASES, load_params().slim, after.parent)
    slim_metrics(before, after).write()


if __name__ == "__main__":
    run_stage(main)
