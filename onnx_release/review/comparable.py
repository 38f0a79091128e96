"""Find out which metrics of two revisions compare, and why others do not: another sample, machine or setting."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from onnx_release.core.imports import reached_files
from onnx_release.core.metrics import Metric
from onnx_release.core.plain_text import count_of
from onnx_release.core.variants import BASE, VARIANTS
from onnx_release.report.metrics import flatten, known_metric
from onnx_release.review.noise import (
    UNCHANGED_MACHINE,
    Spread,
    Statistic,
    certain,
    round_latencies,
    rounds_spread,
    uncertainty,
)
from onnx_release.review.revisions import Revision
from onnx_release.timing.speedup import Speedup

if TYPE_CHECKING:
    import pandas as pd

# Settings in benchmark.json that must be the same for timings to compare, with their names in messages.
SETTINGS = {"batch": "batch size", "threads": "thread count", "provider": "provider", "copies": "copies to a GPU"}
# Files with metrics of the chosen variant only.
CHOSEN_ONLY = ("optimize", "profile")
# The program that times PyTorch. It starts a process for each contender.
HARNESS = "onnx_release/timing/benchmark.py"
# The dependencies of the stage `benchmark` in dvc.lock, beside its code, that PyTorch's time depends on: packages, the
# model's folder with its weights, and samples.
INPUTS = ("requirements.txt", "models/", "data/")


# The reason if a metric is null only in the head.
VALUE_GONE = "it is null in the head"
# The first words of the reason if a speed-up was not measured on one side.
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Pair:
    """Two revisions of one model, `base` and `head`."""

    base: Revision
    head: Revision

    @cached_property
    def values(self) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """Return the metrics of both sides by file and dotted key."""
        before, after = (
            {file: dict(flatten(values)) for file, values in side.metrics.items()} for side in (self.base, self.head)
        )
        return before, after

    def both(self, file: str, key: str) -> tuple[Any, Any]:
        """Return a metric of both sides; None where a side lacks it."""
        before, after = (side.get(file, {}).get(key) for side in self.values)
        return before, after

    def obstacle(self, file: str, key: str, metric: Metric) -> str:
        """Return why the two sides of a metric do not compare; empty if they do."""
        if metric.noise == "decision":
            return ""
        if not is_static(file, key, metric) and self.other_samples:
            return self.other_samples
        if metric.noise and self.other_machine:
            return self.other_machine
        for side, name in enumerate(("the base", "the head")):
            if (doubt := self.doubt(side, file, key)) and not self.same_run(file):
                return f"{NOT_MEASURED} in {name}: {doubt}"
        before, after = self.both(file, key)
        if (before is None) != (after is None):
            return "it is null in the base" if before is None else VALUE_GONE
        return self.other_provider(file, key, metric) if metric.noise else ""

    def doubt(self, side: int, file: str, key: str) -> str:
        """Return why a speed-up counts as not measured on one side; empty if it is measured, and for other metrics."""
        if known_metric(file, key).noise != "speedup":
            return ""
        file, key = self.timed_as(side, file, key)
        values = self.values[side].get(file, {})
        timing = key.rpartition(".")[0]
        run = timing.rpartition(".")[0] if file == "benchmark" else timing  # of one setting, or of all contenders
        counts = (values.get(f"{run}.{name}" if run else name, 0) for name in ("disturbed_rounds", "rounds"))
        return Speedup(values.get(key), *self.interval_ends(side, file, key), *counts).doubt

    def same_run(self, file: str) -> bool:
        """Return whether both sides have the same timings of a file, since nothing was measured again."""
        file, _ = self.timed_as(0, file, "")
        before, after = (side.get(file) for side in self.values)
        return before == after

    def timed_as(self, side: int, file: str, key: str) -> tuple[str, str]:
        """Return the file and key where a timing was measured: the summary repeats one variant's from the benchmark."""
        if file != "summary":
            return file, key
        return "benchmark", f"{self.values[side].get('summary', {}).get('variant')}.{key}"

    def interval_ends(self, side: int, file: str, key: str) -> tuple[Any, Any]:
        """Return the ends of a metric's interval; None where it has none."""
        known = known_metric(file, key)
        stem = key.removesuffix(known.key.rpartition(".")[2]) + known.interval
        values = self.values[side].get(file, {})
        return values.get(f"{stem}_low"), values.get(f"{stem}_high")

    def other_choice(self, file: str) -> str:
        """Return which variants were chosen if a file is about the chosen one and they differ; empty if not."""
        before, after = self.both(file, "variant")
        return f"another variant: {before}, now {after}" if file in CHOSEN_ONLY and before != after else ""

    @cached_property
    def other_samples(self) -> str:
        """Return which samples differ; empty if none do."""
        columns = ["sample", "group"]
        for variant in VARIANTS:
            before, after = (side.table(f"validate/{variant}") for side in (self.base, self.head))
            if before is None or after is None or not {*columns} <= {*before.columns} & {*after.columns}:
                continue
            if not before[columns].equals(after[columns]):
                return f"other evaluation samples: {describe_samples(before)}, now {describe_samples(after)}"
            return ""
        return ""

    @cached_property
    def other_machine(self) -> str:
        """Return why no timings compare: another machine or setting of the benchmark; empty if they do."""
        for side, benchmark in zip((self.base, self.head), self.values, strict=True):
            if "benchmark" not in benchmark:
                return f"{side.name} has no {side.folder}/benchmark.json, which names its machine"
        for key, name in {"machine": "machine", **SETTINGS}.items():
            before, after = self.both("benchmark", key)
            if before != after:
                return f"another {name}: {before}; now {after}"
        return ""

    def other_provider(self, file: str, key: str, metric: Metric) -> str:
        """Return the providers of a contender of the benchmark if they differ; empty if not."""
        before, after = self.both("benchmark", f"{contender(key, metric)}.provider")
        return f"another provider: {before}; now {after}" if file == "benchmark" and before != after else ""

    @cached_property
    def drift(self) -> float:
        """Return how many times as long the machine takes, as PyTorch eager shows it; 1 if it does not.

        If PyTorch eager is the same program on both sides, only the machine can have changed its time, and the machine
        changes every other time as well. Only the certain part of the change counts (`noise.certain`).
        """
        before, after = self.both("benchmark", f"{BASE}.latency_ms.median")
        if not self.same_pytorch or not before or not after:
            return 1.0
        return certain(float(after / before), self.eager_margin)

    @cached_property
    def eager_margin(self) -> float:
        """Return half of the 95 % interval of the change of PyTorch eager's median latency, in its logarithm."""
        before, after = (self.latency_spread(side, BASE, "median") for side in (0, 1))
        return uncertainty((before, after), (0.0, before.freedom + after.freedom)).margin if before and after else 0.0

    def latency_spread(self, side: int, name: str, statistic: Statistic) -> Spread | None:
        """Return the spread of a contender's latency on one side; None without the table of latencies."""
        latencies = (self.base, self.head)[side].table("latency")
        if latencies is None or not {"variant", "round", "latency_ms"} <= {*latencies.columns}:
            return None
        return rounds_spread(round_latencies(latencies, name, statistic), self.starts(side))

    def starts(self, side: int) -> int:
        """Return how often the benchmark of one side started its processes; 0 without a benchmark."""
        found: int = self.values[side].get("benchmark", {}).get("starts", 0)
        return found

    @cached_property
    def same_pytorch(self) -> bool:
        """Return whether PyTorch eager is the same program on both sides, so that only the machine changes its time.

        Packages, model, weights and samples must be the same in dvc.lock. The code must have the same content in the
        files, since the stage may depend on whole folders that PyTorch hardly runs. False if it is not known.
        """
        before, after = (side.locked("benchmark") for side in (self.base, self.head))
        inputs = [{path: md5 for path, md5 in lock.items() if path.startswith(INPUTS)} for lock in (before, after)]
        if inputs[0] != inputs[1] or not all(any(path.startswith(kind) for path in inputs[0]) for kind in INPUTS):
            return False
        programs = [reached_sources(side) for side in (self.base, self.head)]
        if not programs[0] or programs[0] != programs[1]:
            return False
        # A commit may have other code than its timings were made with. If dvc.lock lists a file, its hash counts, too.
        return all(before.get(path) == after.get(path) for path in programs[0])

    def notes(self) -> list[str]:
        """Return the sentences to read before the rows."""
        notes = [reason for reason in (self.other_samples, self.other_machine) if reason]
        before, after = (side.locked("benchmark").get("artifacts/hardware.json") for side in (self.base, self.head))
        if not self.other_machine and before and after and before != after:
            notes.append(
                "the machine has the same name, but artifacts/hardware.json differs: packages, memory or instruction "
                "sets"
            )
        if not self.other_machine and not 1 / UNCHANGED_MACHINE < self.drift < UNCHANGED_MACHINE:
            notes.append(
                f"PyTorch eager is the same program on both sides and takes {self.drift:.2f} times as long, so the "
                "speed of the machine has changed: other times count only if they change by more"
            )
        elif self.same_pytorch and self.eager_margin > math.log(UNCHANGED_MACHINE):
            notes.append("other work disturbed PyTorch eager, so it says little about the speed of the machine")
        if not (self.other_samples or self.other_machine or self.same_pytorch):
            notes.append(
                "PyTorch eager may be another program on the two sides (packages, model, weights, samples or code of "
                "the benchmark differ), so speed-ups may have changed with it"
            )
        for side, values in zip(("base", "head"), self.values, strict=True):
            benchmark = values.get("benchmark", {})
            if benchmark.get("starts") == 1:
                notes.append(
                    f"the benchmark of the {side} has one start of each process, so it does not show how starts differ"
                )
            if benchmark.get("disturbed_rounds"):
                notes.append(
                    f"other work took cores in {benchmark['disturbed_rounds']} of the {benchmark.get('rounds')} rounds "
                    f"of the {side}"
                )
        return notes


def reached_sources(revision: Revision) -> dict[str, bytes]:
    """Return the repository's own files that the benchmark runs, by path; empty if they are not known."""
    if HARNESS not in revision.sources:
        return {}
    with TemporaryDirectory() as folder:
        for path, content in revision.sources.items():
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes(content)
        try:
            reached = reached_files(HARNESS, Path(folder), revision.model)
        except (SyntaxError, ValueError):  # not Python of this version, or not text
            return {}
    return {path: revision.sources[path] for path in reached}


def is_static(file: str, key: str, metric: Metric) -> bool:
    """Return whether a metric describes a file only: then it compares even if the model or the samples differ."""
    return not (metric.noise or metric.column or file.startswith("validate/") or key.startswith("calibration_"))


def contender(key: str, metric: Metric) -> str:
    """Return the name that the * of a metric's key matches, such as a contender or an output; empty without a *."""
    before, _, after = metric.key.partition("*")
    return key[len(before) : len(key) - len(after)]


def describe_samples(samples: "pd.DataFrame") -> str:
    return f"{len(samples)} from {count_of(samples['group'].nunique(), 'group')}"
