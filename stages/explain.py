"""Measure how much error each step of a variant with reduced precision adds, with a row for each step of the graph."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import write_rows
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import REDUCED, leave_out
from onnx_release.validate.explain import explain_variant


def main(model: str, variant: str) -> None:
    files = ModelFiles(model)
    plot = files.plots / "explain" / f"{variant}.csv"
    if variant not in load_spec(model).variants:
        leave_out(None, plot)
        return
    write_rows(plot, explain_variant(files, variant))


if __name__ == "__main__":
    run_stage(main, REDUCED)
