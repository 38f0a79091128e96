"""Choose the variant to release: of those that passed, the most exact of the fastest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.variants import SHIPPABLE
from onnx_release.timing.metrics import BenchmarkMetrics, ContenderMetrics
from onnx_release.timing.speedup import over_compile, over_eager
from onnx_release.validate.metrics import ValidateMetrics

# This variant is optimised and profiled if none may be released.
FALLBACK = "fp32"


@dataclass(frozen=True)
class Candidate:
    """A variant with its validation and timing metrics."""

    name: str
    validation: ValidateMetrics
    timing: ContenderMetrics

    @property
    def refused(self) -> str:
        """Return why it may not be released; empty if it may."""
        if not self.validation.passed:
            return self.validation.failure or "it failed its validation"
        if self.timing.latency_ms.median is None:
            return f"it passed, but could not be timed: {self.timing.failure or 'there is no timing of it'}"
        return ""


@dataclass(frozen=True)
class Validated:
    """The variants that were made, the raw export first, and why others could not be, by name."""

    candidates: list[Candidate]
    not_made: dict[str, str]


def read_validated(model: str, variants: Sequence[str], benchmark: BenchmarkMetrics) -> Validated:
    """Read the metrics of the model's variants. Raises DataError if a stage has not run."""
    found = {name: ValidateMetrics.read(model, name) for name in variants}
    return Validated(
        [Candidate(name, one, benchmark.contenders[name]) for name, one in found.items() if one.made],
        {name: one.failure for name, one in found.items() if not one.made},
    )


def releasable(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that may be released: they passed and were timed, and are not the raw export."""
    return [one for one in candidates if one.name in SHIPPABLE and not one.refused]


def fastest(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the releasable candidate with the fastest median, and those that are not measurably slower.

    If other work took cores in most rounds, these are all, and the choice is not by speed.
    """
    found = releasable(candidates)
    if not found:
        return []
    first = min(found, key=lambda one: one.timing.latency_ms.median or 0.0)
    alike = {first.name, *first.timing.no_difference_from.split(", ")}
    return [one for one in found if one.name in alike]


def choose(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate with the highest SQNR of the fastest, or None: noise in timings costs no accuracy."""
    return max(fastest(candidates), key=lambda one: one.validation.closeness.signal, default=None)


def describe_choice(candidates: Sequence[Candidate]) -> str:
    """Say why it is the chosen variant, in words that follow its name and a comma."""
    alike = [one.name for one in fastest(candidates)]
    if len(alike) > 1:
        names = f"{', '.join(alike[:-1])} and {alike[-1]}"
        return f"the most exact of {names}, between which no difference in speed was measured"
    return (
        "the fastest variant that passed"
        if len(releasable(candidates)) > 1
        else "the only variant that may be released"
    )


def summarise(validated: Validated, sizes_mb: Mapping[str, float], benchmark: BenchmarkMetrics) -> SummaryMetrics:
    """Return a few metrics of the chosen variant, and why it was chosen; `sizes_mb` has the candidates' sizes by name.

    All metrics are None if no variant may be released, and a speed-up is None if it was not measured.
    """
    candidates = validated.candidates
    refused = {one.name: one.refused for one in candidates if one.name in SHIPPABLE and one.refused}
    refused |= validated.not_made
    best = choose(candidates)
    if best is None:
        names = (
            *("variant", "accuracy_drop", "agreement", "speedup_vs_eager", "speedup_vs_compile"),
            *("size_mb", "compression"),
        )
        return SummaryMetrics(**dict.fromkeys(names), not_measured="", reason="", refused=refused)
    eager, compiled = over_eager(best.timing, benchmark), over_compile(best.timing, benchmark)
    return SummaryMetrics(
        variant=best.name,
        reason=describe_choice(candidates),
        refused=refused,
        accuracy_drop=best.validation.accuracy_drop,
        agreement=best.validation.agreement,
        speedup_vs_eager=eager.value if eager.measured else None,
        speedup_vs_compile=compiled.value if compiled.measured else None,
        not_measured=eager.doubt or compiled.doubt,
        size_mb=sizes_mb[best.name],
        compression=sizes_mb[candidates[0].name] / sizes_mb[best.name],
    )
