"""Quantize weights and activations for this machine, as far as the budget allows."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import MODEL_FILE, ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out, make_variant, not_made, why_not_made
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile
from onnx_release.graph.excluded import excluded_nodes
from onnx_release.graph.graph import load_model
from onnx_release.graph.targets import load_target
from onnx_release.static_quantization.metrics import QuantizeStaticMetrics
from onnx_release.static_quantization.quantize_static import quantize_statically
from onnx_release.static_quantization.scoring import Scorer
from onnx_release.static_quantization.search import Goal


def main(model: str) -> None:
    files = ModelFiles(model)
    folder, metrics = files.variant("int8_static").parent, QuantizeStaticMetrics.path(model)
    reason = why_not_made(files.calibration)
    if "int8_static" not in load_spec(model).variants:
        leave_out(metrics, folder)
    elif reason:
        not_made(reason, metrics, folder)
    else:
        make_variant(model, "int8_static", metrics, folder, make)


def make(model: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    scorer = Scorer(files.variant("fp32"), spec, load_data(model), SampleFile(files.calibration_samples))
    assert spec.budget is not None  # a spec that makes variants has one
    calibrated, folder = files.calibration / MODEL_FILE, files.variant("int8_static").parent
    excluded = excluded_nodes(spec.exclude, load_model(calibrated, weights=False), files.sources)
    goal = Goal(spec.budget, load_params(files).quantize_static.minutes, excluded)
    quantize_statically(calibrated, files.ranges, load_target(files), scorer, goal, folder).write(model)


if __name__ == "__main__":
    run_stage(main)
