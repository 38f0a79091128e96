"""Exit with code 1 and the reasons if a variant failed its validation, the search its budget, or a figure its gate.

Validation and budget are held by the bounds in the model's spec.yaml, other figures by `gates` in params.yaml. Those
that say how much worse than a base a figure may be need --base. No stage, so that a failure loses nothing.
"""

import argparse
import sys

from onnx_release.command import run_tool
from onnx_release.compare import compare
from onnx_release.files import read_json
from onnx_release.gates import check_gates, hold
from onnx_release.params import load_params
from onnx_release.paths import METRICS
from onnx_release.revisions import load_pair, workspace
from onnx_release.spec import load_spec
from onnx_release.variants import made_variants


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    check_gates(params.gates)
    failed = spec_failed(params.model)
    if arguments.base:
        base, head = load_pair(arguments.base, None)
        comparison = compare(base, head)
        print("\n".join(["", f"against {base.name}:", *(f"note: {note}" for note in comparison.notes)]))
    else:
        head, comparison = workspace(), None
    outcomes = hold(params.gates, head.metrics, comparison)
    for outcome in outcomes:
        print(outcome)
    if failed or any(outcome.status == "FAILED" for outcome in outcomes):
        sys.exit(1)


def spec_failed(model: str) -> bool:
    """Print how each variant that is made was validated, and the search if it missed its budget; whether one failed."""
    made = made_variants(load_spec(model))
    results = {variant: read_json(METRICS / "validate" / f"{variant}.json") for variant in made}
    for variant, metrics in results.items():
        print(f"{variant}: " + ("passed" if metrics["passed"] else f"FAILED: {metrics['failure']}"))
    static = read_json(METRICS / "quantize_static.json") if "int8_static" in made else {"budget_met": True}
    if not static["budget_met"]:
        print(f"int8_static: FAILED: the search found no graph within the budget; {static['budget_failure']}")
    return not static["budget_met"] or not all(metrics["passed"] for metrics in results.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", metavar="REV", help="hold the gates against this revision's metrics, too")
    run_tool(main, parser)
