"""Check whether a variant with reduced precision keeps within the budget of its model's spec."""

from onnx_release.core.spec import Budget
from onnx_release.measure.closeness import Closeness


def over_budget(found: Closeness, budget: Budget, margin_db: float = 0.0) -> list[str]:
    """Describe each bound of the budget that is missed; an error that is not finite misses any.

    `margin_db` is added to `budget.sqnr_db`.
    """
    failures = []
    if found.sqnr_db is None and found.max_abs_error is None:
        failures.append("an output has NaN or infinity")
    elif budget.sqnr_db is not None and found.signal < budget.sqnr_db + margin_db:
        margin = f" and the margin {margin_db:g}" if margin_db else ""
        failures.append(f"the SQNR is {found.signal:.3g} dB, budget.sqnr_db is {budget.sqnr_db:g}{margin}")
    if budget.agreement is not None and found.agreement is not None and found.agreement < budget.agreement:
        failures.append(
            f"{found.agreement:.3g} of the samples keep PyTorch's answer, budget.agreement is {budget.agreement:g}"
        )
    if budget.accuracy_drop is not None and (lost := accuracy_lost(found, budget.accuracy_drop)):
        failures.append(f"{lost}, budget.accuracy_drop is {budget.accuracy_drop:g}")
    if budget.cosine is not None and not (found.cosine or 0.0) >= budget.cosine:
        cosine = "no number" if found.cosine is None else f"{found.cosine:.4g}"
        failures.append(f"the mean cosine with PyTorch is {cosine}, budget.cosine is {budget.cosine:g}")
    return failures


def accuracy_lost(found: Closeness, bound: float) -> str:
    """Describe the lost accuracy if it is more than `bound`; empty if not.

    Samples without a label do not show lost accuracy. The search, which may have no others, uses `changed_answers`: no
    more accuracy can be lost than answers change. A validation without labels fails.
    """
    drop, changed = found.accuracy_drop, found.changed_answers
    if drop is not None:
        return f"the accuracy drops by {drop:.3g}" if drop > bound else ""
    if changed is not None:
        return f"{changed:.3g} of the answers change on samples without a label" if changed > bound else ""
    return "no sample has a label, so the lost accuracy is unknown"


def describe_budget(budget: Budget | None) -> str:
    """Describe the bounds in words; empty without a budget, when no variant has reduced precision."""
    if budget is None:
        return ""
    bounds = {
        "at least {:.0%} of the samples keep PyTorch's answer": budget.agreement,
        "at most {:.1%} of accuracy is lost": budget.accuracy_drop,
        "the SQNR is at least {:g} dB": budget.sqnr_db,
        "the mean cosine is at least {:g}": budget.cosine,
    }
    return ", ".join(text.format(value) for text, value in bounds.items() if value is not None)
