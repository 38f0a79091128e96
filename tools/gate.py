"""Exit with code 1 and the reasons if a variant failed its validation, or the search its budget.

No stage, so that a failure loses nothing.
"""

import argparse
import sys

from onnx_release.command import run_tool
from onnx_release.files import read_json
from onnx_release.paths import METRICS
from onnx_release.variants import VARIANTS


def main(_: argparse.Namespace) -> None:
    results = {variant: read_json(METRICS / "validate" / f"{variant}.json") for variant in VARIANTS}
    for variant, metrics in results.items():
        print(f"{variant}: " + ("passed" if metrics["passed"] else f"FAILED: {metrics['failure']}"))
    static = read_json(METRICS / "quantize_static.json")
    if not static["budget_met"]:
        print(f"int8_static: FAILED: the search found no graph within the budget; {static['budget_failure']}")
    if not static["budget_met"] or not all(metrics["passed"] for metrics in results.values()):
        sys.exit(1)


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
