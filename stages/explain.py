"""Measure how much error each step of a variant with reduced precision adds, with a row for each step of the graph."""

import argparse

from onnx_release.core.command import run_tool
from onnx_release.core.files import write_rows
from onnx_release.core.params import load_params
from onnx_release.core.paths import PLOTS
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import REDUCED, leave_out
from onnx_release.validate.explain import explain_variant


def main(arguments: argparse.Namespace) -> None:
    plot = PLOTS / "explain" / f"{arguments.variant}.csv"
    if arguments.variant not in load_spec(load_params().model).variants:
        leave_out(None, plot)
        return
    write_rows(plot, explain_variant(arguments.variant))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=REDUCED)
    run_tool(main, parser)
