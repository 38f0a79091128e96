"""Keep track of the experiments of a sweep: which are done, which have failed, and which are still to run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from onnx_release.sweep.plan import Experiment


@dataclass
class Progress:
    """The results of the experiments by name: what they ran, or why they failed.

    `say` gets the name of every experiment that ends, and its result.
    """

    say: Callable[[str, str], None]
    done: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def ended(self, name: str) -> bool:
        return name in self.done or name in self.failed

    def finish(self, name: str, what: str, count: str = "") -> None:
        """Note that an experiment has a result; `count` says how many of how many have ended."""
        self.done[name] = what
        self.say(name, what + (f", {count}" if count else ""))

    def fail(self, name: str, reason: str, count: str = "") -> None:
        self.failed[name] = reason
        self.say(name, f"FAILED{', ' if count else ''}{count}: {reason}")


def unfinished(plan: Iterable[Experiment], progress: Progress) -> list[Experiment]:
    """Return the experiments to run, in the plan's order: those of the grid without a result, and those that prepare.

    One that only prepares is left out if all experiments that build on it are done.
    """
    plan = list(plan)
    wanted: set[str] = set()
    for experiment in reversed(plan):
        if experiment.name not in progress.done and (not experiment.prepares or experiment.name in wanted):
            wanted |= {experiment.name, *experiment.after}
    return [experiment for experiment in plan if experiment.name in wanted and experiment.name not in progress.done]
