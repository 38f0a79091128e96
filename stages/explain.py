"""Measure how much error each step of a variant with reduced precision adds, with a row for each step of the graph."""

import sys

from onnx_release.core.child_process import run_in_child
from onnx_release.core.command import run_stage
from onnx_release.core.errors import ReleaseError
from onnx_release.core.files import write_rows
from onnx_release.core.metrics import NOT_MADE
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import REDUCED, leave_out, why_not_made, write_no_rows
from onnx_release.validate.explain import NOT_EXPLAINED, explain_variant


def main(model: str, variant: str) -> None:
    files = ModelFiles(model)
    plot = files.plots / "explain" / f"{variant}.csv"
    if variant not in load_spec(model).variants:
        leave_out(None, plot)
    elif why_not_made(files.variant(variant).parent):
        write_no_rows(plot, NOT_MADE)
    else:
        try:
            run_in_child(explain, model, variant)
        except ReleaseError as error:  # the report does without
            print(f"the error of {variant} could not be divided among its layers: {error}", file=sys.stderr)
            write_rows(plot, [{NOT_EXPLAINED: " ".join(str(error).split())}])


def explain(model: str, variant: str) -> None:
    """Write the table, in a process of its own: it opens parts of the graph, which may crash it."""
    files = ModelFiles(model)
    write_rows(files.plots / "explain" / f"{variant}.csv", explain_variant(files, variant))


if __name__ == "__main__":
    run_stage(main, REDUCED)
