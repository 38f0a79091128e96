"""Exit with code 1 and the reasons if a variant failed its validation, or the search its budget.

No stage, so that a failure loses nothing.
"""

import argparse
import sys

from onnx_release.command import run_tool
from onnx_release.files import read_json
from onnx_release.params import load_params
from onnx_release.paths import METRICS
from onnx_release.spec import load_spec
from onnx_release.variants import made_variants


def main(_: argparse.Namespace) -> None:
    made = made_variants(load_spec(load_params().model))
    results = {variant: read_json(METRICS / "validate" / f"{variant}.json") for variant in made}
    for variant, metrics in results.items():
        print(f"{variant}: " + ("passed" if metrics["passed"] else f"FAILED: {metrics['failure']}"))
    static = read_json(METRICS / "quantize_static.json") if "int8_static" in made else {"budget_met": True}
    if not static["budget_met"]:
        print(f"int8_static: FAILED: the search found no graph within the budget; {static['budget_failure']}")
    if not static["budget_met"] or not all(metrics["passed"] for metrics in results.values()):
        sys.exit(1)


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
