"""Quantize weights and activations for this machine, as far as the budget allows."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import CALIBRATION_FOLDER, CALIBRATION_SAMPLES, MODEL_FILE, RANGES, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile
from onnx_release.graph.targets import load_target
from onnx_release.static.metrics import QuantizeStaticMetrics
from onnx_release.static.quantize_static import quantize_statically
from onnx_release.static.scoring import Scorer


def main() -> None:
    params, target = load_params(), load_target()
    spec, data = load_spec(params.model), load_data(params.model)
    folder = variant_model("int8_static").parent
    if "int8_static" not in spec.variants:
        leave_out(QuantizeStaticMetrics.path(), folder)
        return
    scorer = Scorer(variant_model("fp32"), spec, data, SampleFile(CALIBRATION_SAMPLES))
    minutes = params.quantize_static.minutes
    quantize_statically(CALIBRATION_FOLDER / MODEL_FILE, RANGES, target, scorer, minutes, folder).write()


if __name__ == "__main__":
    run_stage(main)
