"""Compare all models that two revisions have, each by itself, and say of each in a few words what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_release.core.errors import RevisionError
from onnx_release.core.variants import VARIANTS
from onnx_release.review.compare import UNMOVED, Comparison, compare
from onnx_release.review.revisions import Revision


@dataclass(frozen=True)
class ModelOutcome:
    """What one revision says of a model: the variant that it releases, and the variants that failed validation."""

    released: str | None
    failed: Sequence[str]

    @property
    def passed(self) -> bool:
        return self.released is not None and not self.failed

    def __str__(self) -> str:
        if self.passed:
            return "passed"
        return f"FAILED ({', '.join(self.failed) or 'nothing to release'})"


@dataclass(frozen=True)
class ComparedModel:
    """A model of two revisions. `base` or `head` is None if that side has no metrics of it; then nothing compares."""

    name: str
    base: ModelOutcome | None
    head: ModelOutcome | None
    comparison: Comparison | None

    @property
    def moved(self) -> bool:
        """Return whether a metric differs, or noise has changed a decision."""
        return self.comparison is not None and any(row.moved for row in self.comparison.rows)

    @property
    def release(self) -> str:
        """Write which variant is released, that of both sides if they differ."""
        names = [side.released or "nothing" for side in (self.base, self.head) if side is not None]
        return ", now ".join(dict.fromkeys(names))

    @property
    def verdict(self) -> str:
        """Write whether it passes and what has moved, as `passed, nothing moved` or `2 worse, 1 better`."""
        if self.head is None:
            return "gone"
        if self.base is None:
            return f"new, {self.head}"
        moves = self.moves()
        if moves and self.head.passed:
            return ", ".join(moves)
        return ", ".join([str(self.head), *(moves or [self.why_not()])])

    def moves(self) -> list[str]:
        """Write how many metrics have each verdict that says that something has changed, the worst first."""
        counts = self.comparison.counts() if self.comparison else {}
        return [f"{count} {verdict}" for verdict, count in counts.items() if count and verdict not in UNMOVED]

    def why_not(self) -> str:
        """Say that nothing has moved, and how many metrics do not compare and why."""
        if self.moved:
            return "nothing moved beyond the noise"
        rows = self.comparison.rows if self.comparison else []
        reasons = [row.reason for row in rows if row.verdict == "not comparable"]
        if not reasons:
            return "nothing moved"
        several = len(set(reasons))
        why = reasons[0] if several == 1 else f"for {several} reasons, which --all lists"
        return f"nothing moved, {len(reasons)} not comparable ({why})"


def compare_models(base: Revision, head: Revision, model: str | None = None) -> list[ComparedModel]:
    """Compare every model that either side has, in order of their names, or only `model`.

    Raises RevisionError if neither side has `model`.
    """
    names = sorted({*base.models, *head.models})
    if model is not None and model not in names:
        raise RevisionError(
            f"neither {base.name} nor {head.name} has metrics of {model}, but of {', '.join(names)}: choose one of "
            "them, or run it and commit its metrics"
        )
    return [compare_model(base, head, name) for name in names if model in (None, name)]


def compare_model(base: Revision, head: Revision, name: str) -> ComparedModel:
    """Compare one model, which at least one side has."""
    sides = (base.of_model(name), head.of_model(name))
    there = [name in side.models for side in sides]
    outcomes = [outcome_of(side) if found else None for side, found in zip(sides, there, strict=True)]
    return ComparedModel(name, outcomes[0], outcomes[1], compare(*sides) if all(there) else None)


def outcome_of(revision: Revision) -> ModelOutcome:
    """Read which variant the revision's model releases, and which of its variants failed."""
    metrics = revision.metrics
    validated = {file.partition("/")[2]: found for file, found in metrics.items() if file.startswith("validate/")}
    failed = [variant for variant in VARIANTS if validated.get(variant, {}).get("passed") is False]
    return ModelOutcome(metrics.get("summary", {}).get("variant"), failed)
