"""Exit with code 1 and the reasons if a variant failed validation, or if a gate failed or its metric was not measured.

Validation checks the tolerance and the budget of the model's spec.yaml. `gates` in params.yaml check other metrics of
every model; those in a model's own params.yaml replace them for it. Gates on how much worse than a base a metric may be
need --base. With --all, a gate that matches no metric of any model fails, too. This is not a stage, so a failure loses
no results.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.command import run_tool
from onnx_release.core.errors import ReleaseError
from onnx_release.core.model_list import load_models
from onnx_release.core.params import Gate
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import made_variants
from onnx_release.review.compare import Comparison, compare
from onnx_release.review.gates import check_gates, load_gates, unmatched
from onnx_release.review.revisions import Revision, load_pair, workspace
from onnx_release.static_quantization.metrics import QuantizeStaticMetrics
from onnx_release.validate.metrics import ValidateMetrics
from tools.models import add_model_option, chosen_model


@dataclass(frozen=True)
class Checked:
    """What was checked of a model: whether all passed, what its gates name, and what of that it has no metric for."""

    passed: bool
    named: set[str]
    unmatched: set[str]


def main(arguments: argparse.Namespace) -> None:
    base, head = load_pair(arguments.base, None) if arguments.base else (None, workspace())
    if arguments.all:
        found = [check_listed(ModelFiles(name), base, head) for name in load_models()]
        passed = not say_unmatched(found) and all(one.passed for one in found)
    else:
        passed = check_model(chosen_model(arguments.model), base, head).passed
    if not passed:
        sys.exit(1)


def check_listed(files: ModelFiles, base: Revision | None, head: Revision) -> Checked:
    """Check one model of several: an error, as if it has no metrics, is printed and keeps no other from its checks."""
    print(f"{files.model}:")
    try:
        return check_model(files, base, head)
    except ReleaseError as error:
        print(f"error: {error}")
        return Checked(passed=False, named=set(), unmatched=set())


def check_model(files: ModelFiles, base: Revision | None, head: Revision) -> Checked:
    """Print what validation and the gates say of a model."""
    gates = load_gates(files)
    passed = spec_passed(files.model)
    if SummaryMetrics.read(files.model).variant is None:
        print("release: FAILED: no variant both passed and could be timed")
        passed = False
    own = head.of_model(files.model)
    passed &= gates_passed(gates, own, None if base is None else compared_with(base, own))
    return Checked(passed, {gate.metric for gate in gates}, unmatched(gates, own))


def spec_passed(model: str) -> bool:
    """Print how each variant was validated, and what the search missed. Return whether all validations passed."""
    made = made_variants(load_spec(model))
    results = {variant: ValidateMetrics.read(model, variant) for variant in made}
    for variant, found in results.items():
        print(f"{variant}: " + ("passed" if found.passed else f"FAILED: {found.failure}"))
    static = QuantizeStaticMetrics.read_if_made(model)
    if static is not None and not static.budget_met:
        print(f"note: on calibration samples, the search found no int8_static for the budget: {static.budget_failure}")
    return all(found.passed for found in results.values())


def compared_with(base: Revision, head: Revision) -> Comparison:
    """Compare the head's model with that of the base, and print what it is compared with."""
    comparison = compare(base.of_model(head.model), head)
    print(f"\ncompared with {base.name}:")
    notes = comparison.notes if head.model in base.models else [f"it has no {head.model}, which is new"]
    for note in notes:
        print(f"note: {note}")
    return comparison


def gates_passed(gates: Sequence[Gate], head: Revision, comparison: Comparison | None) -> bool:
    """Print the outcomes of a model's gates, and what to do about them. Return whether none fails."""
    outcomes = check_gates(gates, head, comparison)
    for outcome in outcomes:
        print(outcome)
    for fix in dict.fromkeys(outcome.fix for outcome in outcomes if outcome.fix):
        print(f"fix: {fix}")
    return not any(outcome.fails for outcome in outcomes)


def say_unmatched(found: Sequence[Checked]) -> list[str]:
    """Print and return what gates name and no model has that they are for: they would check nothing, for ever."""
    named = set().union(*(one.named for one in found))
    without = sorted(name for name in named if all(name in one.unmatched for one in found if name in one.named))
    if without:
        print("all models:")
    for name in without:
        print(f"{name}: FAILED, no model has such a metric: correct its name, or remove the gate")
    return without


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    add_model_option(which)
    which.add_argument("--all", action="store_true", help="check all models on the list, one after the other")
    parser.add_argument(
        "--base", metavar="REV", help="check the gates that compare with a base, too, against this revision's metrics"
    )
    run_tool(main, parser)
