"""Convert the float32 model to float16; nodes that overflow on samples or shape cases stay in float32."""

import math

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out, make_variant
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile
from onnx_release.reduce.fp16 import convert_to_fp16
from onnx_release.reduce.metrics import Fp16Metrics
from onnx_release.reduce.runs import corner_runs


def main(model: str) -> None:
    folder, metrics = ModelFiles(model).variant("fp16").parent, Fp16Metrics.path(model)
    if "fp16" not in load_spec(model).variants:
        leave_out(metrics, folder)
    else:
        make_variant(model, "fp16", metrics, folder, make, make_apart)


def make(model: str, apart: bool = False) -> None:
    files = ModelFiles(model)
    samples, params = SampleFile(files.calibration_samples), load_params(files).fp16
    # A sum grows with the size, however much larger than a sample that is.
    corners = corner_runs(load_spec(model), samples, load_data(model), draws=1, times_larger=math.inf)
    folder = files.variant("fp16").parent
    convert_to_fp16(files.variant("fp32"), samples, params, folder, apart, corners).write(model)


def make_apart(model: str) -> None:
    """Do the same with each try in a process of its own, so that one that crashes is only refused."""
    make(model, apart=True)


if __name__ == "__main__":
    run_stage(main)
