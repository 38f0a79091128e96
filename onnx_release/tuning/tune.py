"""Find runtime settings that make a model faster here: each is tried against what was kept so far."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, takewhile
from typing import Any

from onnx_release.core.errors import BenchmarkError
from onnx_release.core.params import Benchmark, Runtime
from onnx_release.timing.benchmark import measure, paired_speedup
from onnx_release.timing.contenders import Arrays, Contender
from onnx_release.timing.speedup import Speedup
from onnx_release.tuning.metrics import TrialMetrics, TuneMetrics

NOTHING = Speedup(None, None, None)
NOW, TRIED = "as it is", "changed"


@dataclass(frozen=True)
class Trial:
    """One changed setting: how many times as fast with it, and whether it is kept."""

    key: str
    value: Any
    speedup: Speedup
    kept: bool
    failure: str = ""


@dataclass(frozen=True)
class Tuned:
    """The settings to release with, every trial, and the names of the changes that there was no time for.

    `failure` says why the model could not be measured as it is, in which case the settings are as they were.
    """

    runtime: Runtime
    trials: list[Trial]
    untried: list[str]
    failure: str = ""


def changes(runtime: Runtime, cores: int) -> Iterator[tuple[str, Any]]:
    """The settings to try: powers of two below the cores, all of them, and the other value of every switch."""
    powers = takewhile(lambda threads: threads < cores, (2**exponent for exponent in count()))
    for threads in (*powers, cores):
        if threads != (runtime.intra_threads or cores):
            yield "intra_threads", threads
    for key in ("spinning", "arena", "memory_pattern"):
        yield key, not getattr(runtime, key)
    yield "execution_mode", "parallel" if runtime.execution_mode == "sequential" else "sequential"


def tune(entry: Contender, batches: list[Arrays], params: Benchmark, seconds: float | None, cores: int) -> Tuned:
    """Try the changes one by one; None for `seconds` tries nothing.

    No trial is begun that would end after `seconds` if it took as long as the longest before it. A setting is kept only
    if its speed-up was measured, and the whole interval of it is above 1.
    """
    if seconds is None:
        return Tuned(entry.runtime, [], [])
    runtime = entry.runtime
    trials: list[Trial] = []
    untried: list[str] = []
    begin, longest = time.perf_counter(), 0.0
    for key, value in changes(runtime, cores):
        start = time.perf_counter()
        if start - begin + longest > seconds:
            untried.append(trial_name(key, value))
            continue
        try:
            trial = compare(entry, runtime, (key, value), batches, params)
        except BenchmarkError as error:
            return Tuned(entry.runtime, [replace(trial, kept=False) for trial in trials], untried, str(error))
        trials.append(trial)
        if trial.kept:
            runtime = runtime.model_copy(update={key: value})
        longest = max(longest, time.perf_counter() - start)
    return Tuned(runtime, trials, untried)


def compare(
    entry: Contender, runtime: Runtime, change: tuple[str, Any], batches: list[Arrays], params: Benchmark
) -> Trial:
    """The model as `runtime` says against the same with one setting changed, in one run of the harness.

    Memory is handled as it is where the release runs, since that is what the arena is for. Raises BenchmarkError if
    the model cannot be measured as `runtime` says.
    """
    key, value = change
    pair = {NOW: runtime, TRIED: runtime.model_copy(update={key: value})}
    entries = [replace(entry, name=name, runtime=item) for name, item in pair.items()]
    try:
        found = measure(entries, batches, params, keep_memory=False)
    except BenchmarkError as error:
        raise BenchmarkError(f"{entry.name} cannot be measured: {error}") from error
    now, tried = (found.measurements[name] for name in pair)
    if now.failure:
        raise BenchmarkError(f"{entry.name} cannot be measured: {now.failure}")
    value_low_high = paired_speedup(now, tried, params)
    if value_low_high is None:
        return Trial(key, value, NOTHING, False, tried.failure)
    speedup = Speedup(*value_low_high, found.disturbed, params.starts * params.rounds)
    return Trial(key, value, speedup, speedup.measured and speedup.figures[1] > 1)


def tune_metrics(variant: str, tuned: Tuned) -> TuneMetrics:
    """What metrics/tune.json has of the trials."""
    return TuneMetrics(
        variant=variant,
        failure=tuned.failure,
        kept=", ".join(trial_name(trial.key, trial.value) for trial in tuned.trials if trial.kept),
        untried=", ".join(tuned.untried),
        trials={
            trial_name(trial.key, trial.value): TrialMetrics(
                speedup=trial.speedup.value,
                speedup_low=trial.speedup.low,
                speedup_high=trial.speedup.high,
                rounds=trial.speedup.rounds,
                disturbed_rounds=trial.speedup.disturbed,
                kept=trial.kept,
                failure=trial.failure,
            )
            for trial in tuned.trials
        },
    )


def trial_name(key: str, value: Any) -> str:
    return f"{key}_{value}".lower()
