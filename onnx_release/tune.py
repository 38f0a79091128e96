"""Find runtime settings that make a model faster here: each is tried against what was kept so far."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from onnx_release.benchmark import measure, round_medians
from onnx_release.contenders import Arrays, Contender
from onnx_release.errors import BenchmarkError
from onnx_release.params import Benchmark, Runtime
from onnx_release.speedup import speedup_interval

NOW, TRIED = "as it is", "changed"


@dataclass(frozen=True)
class Trial:
    """One changed setting: how many times as fast with it, the interval, and whether it is kept."""

    key: str
    value: Any
    speedup: float | None
    low: float | None
    high: float | None
    kept: bool
    failure: str = ""

    @property
    def name(self) -> str:
        return f"{self.key}_{self.value}".lower()


def changes(runtime: Runtime, cores: int) -> Iterator[tuple[str, Any]]:
    """The settings to try: powers of two below the cores, and the other value of every switch."""
    threads = 1
    while threads < cores:
        if threads != runtime.intra_threads:
            yield "intra_threads", threads
        threads *= 2
    for key in ("spinning", "arena", "memory_pattern"):
        yield key, not getattr(runtime, key)
    yield "execution_mode", "parallel" if runtime.execution_mode == "sequential" else "sequential"


def tune(
    entry: Contender, batches: list[Arrays], params: Benchmark, seconds: float | None, cores: int
) -> tuple[Runtime, list[Trial], list[str]]:
    """The settings to release `entry` with, every trial, and the names of those that `seconds` left no time for.

    A setting is kept only if the whole interval of its speed-up is above 1. Raises BenchmarkError if the model cannot
    be measured as it is. None for `seconds` tries nothing.
    """
    if seconds is None:
        return entry.runtime, [], []
    runtime, trials, untried = entry.runtime, [], []
    begin, longest = time.perf_counter(), 0.0
    for key, value in changes(runtime, cores):
        start = time.perf_counter()
        if start - begin + longest > seconds:
            untried.append(Trial(key, value, None, None, None, False).name)
            continue
        trial = compare(entry, runtime, (key, value), batches, params)
        trials.append(trial)
        if trial.kept:
            runtime = runtime.model_copy(update={key: value})
        longest = max(longest, time.perf_counter() - start)
    return runtime, trials, untried


def compare(
    entry: Contender, runtime: Runtime, change: tuple[str, Any], batches: list[Arrays], params: Benchmark
) -> Trial:
    """The model as `runtime` says against the same with one setting changed, in one run of the harness."""
    key, value = change
    pair = {NOW: runtime, TRIED: runtime.model_copy(update={key: value})}
    found = measure([replace(entry, name=name, runtime=item) for name, item in pair.items()], batches, params)
    now, tried = (round_medians(found.measurements[name]) for name in pair)
    if now is None:
        raise BenchmarkError(f"{entry.name} cannot be measured: {found.measurements[NOW].failure}")
    if tried is None:
        return Trial(key, value, None, None, None, False, found.measurements[TRIED].failure)
    speedup, low, high = speedup_interval(now, tried, params.starts, params.seed)
    return Trial(key, value, speedup, low, high, kept=low > 1)


def tune_metrics(variant: str, trials: list[Trial], untried: list[str]) -> dict[str, Any]:
    """metrics/tune.json."""
    return {
        "variant": variant,
        "kept": ", ".join(trial.name for trial in trials if trial.kept),
        "untried": ", ".join(untried),
        "trials": {
            trial.name: {
                "speedup": trial.speedup,
                "speedup_low": trial.low,
                "speedup_high": trial.high,
                "kept": trial.kept,
                "failure": trial.failure,
            }
            for trial in trials
        },
    }
