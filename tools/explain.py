"""Show which layers of a variant add the most error, and where its error first exceeds a bound.

Of the export, it names the first module whose values differ from PyTorch's, with its source line.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from onnx_release.core.command import run_tool
from onnx_release.core.errors import ParameterError
from onnx_release.core.plain_text import align_columns
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import REFERENCES, check_made
from onnx_release.report.text import number
from onnx_release.validate.explain import explain_variant, first_beyond
from tools.models import add_model_option, chosen_model


def main(arguments: argparse.Namespace) -> None:
    if arguments.top < 1 or not math.isfinite(arguments.bound):
        raise ParameterError("--top is 1 or more layers, and --bound a number of dB")
    files = chosen_model(arguments.model)
    check_made(arguments.variant, load_spec(files.model))
    if arguments.variant == "export":
        from onnx_release.export.first_difference import explain_export  # it needs torch

        print(explain_export(files))
        return
    rows = explain_variant(files, arguments.variant)
    print(ranking(rows, arguments.top))
    print()
    print(departure(rows, arguments.bound))


def ranking(rows: Sequence[Mapping[str, Any]], top: int) -> str:
    """Make the table of the steps that add the most error; NaN and infinity come first."""
    worst = sorted(rows, key=lambda row: float("-inf") if row["added"] is None else -row["added"])[:top]
    lines = [
        ["node", "operators", "error added", "so far, dB", "range", "weight spread", "module", "source"],
        *(
            [
                row["node"],
                row["operators"],
                "not finite" if row["added"] is None else f"{number(row['added'] * 100)} %",
                "same" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}",
                f"{row['low']:.3g} to {row['high']:.3g}",
                "" if row["weight_spread"] is None else f"{row['weight_spread']:.1f}",
                row["module"],
                row["source"],
            ]
            for row in worst
        ),
    ]
    return align_columns(lines)


def departure(rows: Sequence[Mapping[str, Any]], bound_db: float) -> str:
    """Write a sentence on the first step beyond the bound."""
    row = first_beyond(rows, bound_db)
    if row is None:
        return f"Every step has an SQNR of at least {bound_db:g} dB."
    where = f", {row['module']} at {row['source']}" if row["module"] else ""
    found = "is not finite" if row["sqnr_db"] is None else f"has {row['sqnr_db']:.1f} dB"
    return f"The first step below {bound_db:g} dB is {row['node']} ({row['operators']}{where}): it {found}."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=["export", *REFERENCES])
    add_model_option(parser)
    parser.add_argument("--top", type=int, default=20, help="how many layers to list (20)")
    parser.add_argument("--bound", type=float, default=20.0, help="the SQNR in dB that a step must keep (20)")
    run_tool(main, parser)
