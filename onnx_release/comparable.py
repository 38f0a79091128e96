"""What stands in the way of comparing two revisions: other models, samples, machines, settings; and what they share."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from onnx_release.metrics import Metric, flatten
from onnx_release.noise import Spread, round_latencies, rounds_spread
from onnx_release.revisions import Revision
from onnx_release.variants import BASE, VARIANTS

# Settings in metrics/benchmark.json without which timings do not compare, and what they are called.
SETTINGS = {"batch": "batch size", "threads": "thread count", "provider": "provider", "copies": "copies to a GPU"}
# Files whose figures are of the chosen variant alone.
OF_THE_CHOICE = ("tune", "optimize", "profile")
# What PyTorch's time comes from, in dvc.lock: while these are the same, what moves it is the machine.
PYTORCH = (
    *("models/{model}", "data/raw/{model}", "data/prepared/evaluation.npz", "requirements.txt"),
    *(f"onnx_release/{name}.py" for name in ("benchmark", "checkpoint", "contenders", "network", "turns")),
)


# A contender, "median" or "mean", and whether it is paired with PyTorch eager round by round.
LatencyKey = tuple[str, str, bool]


@dataclass(frozen=True)
class Pair:
    """Two revisions, `base` and `head`."""

    base: Revision
    head: Revision

    @cached_property
    def values(self) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """The figures of both sides by file and dotted key."""
        before, after = (
            {file: dict(flatten(values)) for file, values in side.metrics.items()} for side in (self.base, self.head)
        )
        return before, after

    def both(self, file: str, key: str) -> tuple[Any, Any]:
        """A figure of both sides; None where a side lacks it."""
        before, after = (side.get(file, {}).get(key) for side in self.values)
        return before, after

    def obstacle(self, file: str, key: str, metric: Metric) -> str:
        """Why the two sides of a figure do not compare; empty if they do."""
        if metric.noise == "decision":
            return ""
        if not is_static(file, key, metric) and self.other_samples:
            return self.other_samples
        if metric.noise and (reason := self.other_machine or self.other_provider(file, key, metric)):
            return reason
        before, after = self.both(file, key)
        if (before is None) != (after is None):
            doubt = self.both(file, "not_measured")[before is not None]
            if metric.noise == "speedup" and doubt:
                return f"not measured in {'the base' if before is None else 'the head'}: {doubt}"
            return "there was no value (null)" if before is None else "there is no value any more (null)"
        return ""

    def other_choice(self, file: str) -> str:
        """Whether a file is of the chosen variant, and another was chosen; empty if not."""
        before, after = self.both(file, "variant")
        return f"of another variant: {before}, now {after}" if file in OF_THE_CHOICE and before != after else ""

    @cached_property
    def other_samples(self) -> str:
        """Which model or samples differ; empty if neither does."""
        if self.base.model != self.head.model:
            return f"another model: {self.base.model}, now {self.head.model}"
        columns = ["sample", "group"]
        for variant in VARIANTS:
            before, after = (side.table(f"validate/{variant}") for side in (self.base, self.head))
            if before is None or after is None or not {*columns} <= {*before.columns} & {*after.columns}:
                continue
            if not before[columns].equals(after[columns]):
                return f"other evaluation samples: {described(before)}, now {described(after)}"
            return ""
        return ""

    @cached_property
    def other_machine(self) -> str:
        """Why no timings compare: another machine, or another setting of the benchmark; empty if they do."""
        for side, benchmark in zip((self.base, self.head), self.values, strict=True):
            if "benchmark" not in benchmark:
                return f"{side.name} has no metrics/benchmark.json, which says where it ran"
        for key, name in {"machine": "machine", **SETTINGS}.items():
            before, after = self.both("benchmark", key)
            if before != after:
                return f"another {name}: {before}; now {after}"
        return ""

    def other_provider(self, file: str, key: str, metric: Metric) -> str:
        """Whether a contender of the benchmark ran on another provider than before; empty if not."""
        before, after = self.both("benchmark", f"{contender(key, metric)}.provider")
        return f"on another provider: {before}; now {after}" if file == "benchmark" and before != after else ""

    @cached_property
    def drift(self) -> float:
        """How many times as long PyTorch eager takes, where it is the same program on both sides; 1 elsewhere.

        Nothing but the machine has moved it then, and the machine moves every other time as well.
        """
        before, after = self.both("benchmark", f"{BASE}.latency_ms.median")
        if not self.same_pytorch or not before or not after:
            return 1.0
        return float(after / before)

    @cached_property
    def latency_spreads(self) -> tuple[dict[LatencyKey, Spread | None], dict[LatencyKey, Spread | None]]:
        """For both sides the spread of each contender's median and mean latency, and of its ratios to PyTorch eager."""
        base, head = (
            spreads_by_contender(side.table("latency"), values.get("benchmark", {}).get("starts", 0))
            for side, values in zip((self.base, self.head), self.values, strict=True)
        )
        return base, head

    @cached_property
    def same_pytorch(self) -> bool:
        """Whether dvc.lock has the same network, weights, samples, packages and harness behind both benchmarks."""
        before, after = (side.locked("benchmark") for side in (self.base, self.head))
        paths = [path.format(model=self.base.model) for path in PYTORCH]
        return all(path in before and before[path] == after.get(path) for path in paths)

    def notes(self, noticed_drift: float) -> list[str]:
        """Sentences to be read before the rows; the machine's drift from `noticed_drift` on."""
        notes = [reason for reason in (self.other_samples, self.other_machine) if reason]
        before, after = (side.locked("benchmark").get("artifacts/hardware.json") for side in (self.base, self.head))
        if not self.other_machine and before and after and before != after:
            notes.append(
                "the machine has the same name, but artifacts/hardware.json differs: packages, memory, instruction sets"
            )
        if not self.other_machine and not 1 / noticed_drift < self.drift < noticed_drift:
            notes.append(
                f"PyTorch eager takes {self.drift:.2f} times as long, and is the same program on both sides: the "
                "speed of the machine has changed, and other times may change by as much before they count"
            )
        for side, values in zip(("base", "head"), self.values, strict=True):
            benchmark = values.get("benchmark", {})
            if benchmark.get("starts") == 1:
                notes.append(f"the benchmark of the {side} has one start, so it does not know how starts differ")
            if benchmark.get("disturbed_rounds"):
                notes.append(
                    f"other work took cores in {benchmark['disturbed_rounds']} of the {benchmark.get('rounds')} rounds "
                    f"of the {side}"
                )
        return notes


def spreads_by_contender(latencies: pd.DataFrame | None, starts: int) -> dict[LatencyKey, Spread | None]:
    """From metrics/plots/latency.csv; empty without it or its columns."""
    if latencies is None or not {"variant", "round", "latency_ms"} <= {*latencies.columns}:
        return {}
    rounds = round_latencies(latencies)
    return {
        (name, statistic, paired): rounds_spread(
            own, starts, rounds.get(BASE, {}).get(statistic, []) if paired else None
        )
        for name, statistics in rounds.items()
        for statistic, own in statistics.items()
        for paired in (False, True)
    }


def is_static(file: str, key: str, metric: Metric) -> bool:
    """Whether a figure is of a file alone: another model or other samples leave it what it is."""
    return not (metric.noise or metric.column or file.startswith("validate/") or key.startswith("calibration_"))


def contender(key: str, metric: Metric) -> str:
    """What the first * of a metric's key stands for: a contender, or one of another setting."""
    return key.removesuffix(metric.key.removeprefix("*"))


def described(samples: pd.DataFrame) -> str:
    return f"{len(samples)} from {samples['group'].nunique()} groups"
