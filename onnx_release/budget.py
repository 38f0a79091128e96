"""What a variant of fewer bits may lose, and whether it keeps within that."""

import math
from typing import Any

from onnx_release.errors import ParameterError
from onnx_release.params import Budget
from onnx_release.spec import Spec


def check_budget(budget: Budget, spec: Spec) -> None:
    """Raise ParameterError unless some bound of the budget is of a figure that the task has."""
    if spec.task != "classification" and budget.sqnr_db is None:
        raise ParameterError(
            f"budget: agreement and accuracy are of classes, which the task {spec.task} does not have. "
            "Set budget.sqnr_db in params.yaml, for example to 20"
        )


def over_budget(metrics: dict[str, Any], budget: Budget, margin_db: float = 0.0) -> list[str]:
    """What is lost beyond the budget, a sentence each; an error that is not finite is beyond any.

    `margin_db` is asked for on top of `budget.sqnr_db`.
    """
    failures = []
    if metrics["sqnr_db"] is None and metrics["max_abs_error"] is None:
        failures.append("an output holds NaN or infinity")
    elif budget.sqnr_db is not None and signal(metrics) < budget.sqnr_db + margin_db:
        margin = f" and the margin {margin_db:g}" if margin_db else ""
        failures.append(f"the SQNR is {signal(metrics):.3g} dB, budget.sqnr_db is {budget.sqnr_db:g}{margin}")
    if budget.agreement is not None and metrics.get("agreement", 1.0) < budget.agreement:
        failures.append(
            f"{metrics['agreement']:.3g} of the samples keep PyTorch's answer, budget.agreement is {budget.agreement:g}"
        )
    if budget.accuracy_drop is not None and metrics.get("accuracy_drop", 0.0) > budget.accuracy_drop:
        failures.append(
            f"the accuracy drops by {metrics['accuracy_drop']:.3g}, budget.accuracy_drop is {budget.accuracy_drop:g}"
        )
    return failures


def signal(metrics: dict[str, Any]) -> float:
    """The SQNR in dB: infinite without any error, and worse than any with NaN or where zeros should be."""
    if metrics["sqnr_db"] is None:
        return math.inf if metrics["max_abs_error"] == 0 else -math.inf
    return float(metrics["sqnr_db"])
