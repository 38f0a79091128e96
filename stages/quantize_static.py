"""Quantize weights and activations for the CPU at hand, as far as the budget allows."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import write_json
from onnx_release.core.params import load_params
from onnx_release.core.paths import CALIBRATED, CALIBRATION, METRICS, RANGES, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile
from onnx_release.graph.targets import load_target
from onnx_release.static.quantize_static import quantize_statically
from onnx_release.static.scoring import Judge


def main() -> None:
    params, target = load_params(), load_target()
    spec, data = load_spec(params.model), load_data(params.model)
    folder, metrics = variant_model("int8_static").parent, METRICS / "quantize_static.json"
    if "int8_static" not in spec.variants:
        leave_out(metrics, folder)
        return
    judge = Judge(variant_model("fp32"), spec, data, SampleFile(CALIBRATION))
    minutes = params.quantize_static.minutes
    write_json(metrics, quantize_statically(CALIBRATED / "model.onnx", RANGES, target, judge, minutes, folder))


if __name__ == "__main__":
    run_stage(main)
