"""Compare one variant with PyTorch. A variant that fails is reported, and `python -m tools.gate` refuses it."""

import sys

from onnx_release.core.child_process import ChildError, run_in_child
from onnx_release.core.command import run_stage
from onnx_release.core.errors import GraphError
from onnx_release.core.files import write_rows
from onnx_release.core.metrics import NOT_MADE
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import VARIANTS, leave_out, made_variants, why_not_made, write_no_rows
from onnx_release.data.model_data import load_data
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.runtime.settings import load_runtime
from onnx_release.validate.metrics import ValidateMetrics
from onnx_release.validate.validate import budget_of, validate


def main(model: str, variant: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    plot = files.plots / "validate" / f"{variant}.csv"
    if variant not in made_variants(spec):
        leave_out(ValidateMetrics.path(model, variant), plot)
        return
    reason = why_not_made(files.variant(variant).parent)
    if not reason:
        try:
            run_in_child(compare, model, variant)
        except (ChildError, GraphError) as error:
            reason = f"the file does not run: {error}"
    if reason:
        write_no_rows(plot, NOT_MADE)
        ValidateMetrics.not_made(reason).write(model, variant)
    metrics = ValidateMetrics.read(model, variant)
    if not metrics.passed:
        print(f"{variant} of {model} fails: {metrics.failure}", file=sys.stderr)


def compare(model: str, variant: str) -> None:
    """Validate the variant in a process of its own, which the file may crash."""
    files, spec = ModelFiles(model), load_spec(model)
    params = load_params(files)
    # One thread, so that the metrics are the same on any number of cores.
    runtime = load_runtime(files, params.runtime).model_copy(update={"intra_threads": 1})
    onnx_model = OnnxModel(files.variant(variant), spec, runtime)
    metrics, rows = validate(onnx_model, load_data(model), files, params.validate_, budget_of(variant, spec))
    write_rows(files.plots / "validate" / f"{variant}.csv", rows)
    metrics.write(model, variant)


if __name__ == "__main__":
    run_stage(main, VARIANTS)
