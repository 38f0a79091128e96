"""Compare one variant with PyTorch. A variant that fails is reported, and `python -m tools.gate` refuses it."""

import argparse
import sys

from onnx_release.core.command import run_tool
from onnx_release.core.files import write_rows
from onnx_release.core.params import load_params
from onnx_release.core.paths import EVALUATION_SAMPLES, PLOTS, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import VARIANTS, leave_out, made_variants
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.runtime.settings import load_runtime
from onnx_release.validate.metrics import ValidateMetrics
from onnx_release.validate.validate import budget_of, validate


def main(arguments: argparse.Namespace) -> None:
    variant = arguments.variant
    params = load_params()
    spec = load_spec(params.model)
    plot = PLOTS / "validate" / f"{variant}.csv"
    if variant not in made_variants(spec):
        leave_out(ValidateMetrics.path(variant), plot)
        return
    # One thread, so that the metrics are the same on any number of cores.
    runtime = load_runtime(params.runtime).model_copy(update={"intra_threads": 1})
    metrics, rows = validate(
        OnnxModel(variant_model(variant), spec, runtime),
        load_data(params.model),
        SampleFile(EVALUATION_SAMPLES),
        params.validate_,
        budget_of(variant, spec),
    )
    write_rows(plot, rows)
    metrics.write(variant)
    if not metrics.passed:
        print(f"{variant} fails: {metrics.failure}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    run_tool(main, parser)
