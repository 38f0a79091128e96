"""Exit with code 1 and the reasons if a variant failed validation, or if a gate failed or its metric was not measured.

Validation checks the tolerance and the budget of the model's spec.yaml. `gates` in params.yaml check other metrics;
gates on how much worse than a base a metric may be need --base. This is not a stage, so a failure loses no results.
"""

import argparse
import sys

from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.command import run_tool
from onnx_release.core.params import load_params
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import made_variants
from onnx_release.review.compare import compare
from onnx_release.review.gates import check_gates, refuse_bad_gates
from onnx_release.review.revisions import load_pair, workspace
from onnx_release.static.metrics import QuantizeStaticMetrics
from onnx_release.validate.metrics import ValidateMetrics


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    refuse_bad_gates(params.gates)
    failed = spec_failed(params.model)
    if SummaryMetrics.read().variant is None:
        print("release: FAILED: no variant both passed and could be timed")
        failed = True
    if arguments.base:
        base, head = load_pair(arguments.base, None)
        comparison = compare(base, head)
        print("\n".join(["", f"compared with {base.name}:", *(f"note: {note}" for note in comparison.notes)]))
    else:
        head, comparison = workspace(), None
    outcomes = check_gates(params.gates, head, comparison)
    for outcome in outcomes:
        print(outcome)
    for fix in dict.fromkeys(outcome.fix for outcome in outcomes if outcome.fix):
        print(f"fix: {fix}")
    if failed or any(outcome.fails for outcome in outcomes):
        sys.exit(1)


def spec_failed(model: str) -> bool:
    """Print how each variant was validated, and what the search missed. Return whether a validation failed."""
    made = made_variants(load_spec(model))
    results = {variant: ValidateMetrics.read(variant) for variant in made}
    for variant, found in results.items():
        print(f"{variant}: " + ("passed" if found.passed else f"FAILED: {found.failure}"))
    static = QuantizeStaticMetrics.read() if "int8_static" in made else None
    if static is not None and not static.budget_met:
        print(f"note: on calibration samples, the search found no int8_static for the budget: {static.budget_failure}")
    return not all(found.passed for found in results.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--base", metavar="REV", help="check the gates that compare with a base, too, against this revision's metrics"
    )
    run_tool(main, parser)
