"""Hold one variant against PyTorch. A variant that fails is reported, and `python -m tools.gate` refuses it."""

import argparse
import sys

from onnx_release.command import run_tool
from onnx_release.files import write_json, write_rows
from onnx_release.model_data import load_data
from onnx_release.onnx_model import OnnxModel
from onnx_release.params import load_params
from onnx_release.paths import EVALUATION, METRICS, PLOTS, variant_model
from onnx_release.runtime import load_runtime
from onnx_release.samples import SampleFile
from onnx_release.spec import load_spec
from onnx_release.validate import budget_of, validate
from onnx_release.variants import VARIANTS, leave_out, made_variants


def main(arguments: argparse.Namespace) -> None:
    variant = arguments.variant
    params = load_params()
    spec = load_spec(params.model)
    plot, metrics_file = PLOTS / "validate" / f"{variant}.csv", METRICS / "validate" / f"{variant}.json"
    if variant not in made_variants(spec):
        leave_out(metrics_file, plot)
        return
    # One thread, so that the metrics are the same on any number of cores.
    runtime = load_runtime(params.runtime).model_copy(update={"intra_threads": 1})
    metrics, rows = validate(
        OnnxModel(variant_model(variant), spec, runtime),
        load_data(params.model),
        SampleFile(EVALUATION),
        params.validate_,
        budget_of(variant, spec),
    )
    write_rows(plot, rows)
    write_json(metrics_file, metrics)
    if not metrics["passed"]:
        print(f"{variant} fails: {metrics['failure']}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    run_tool(main, parser)
