"""Time contenders against each other: all processes live, one works at a time, and they take turns in rounds.

Turns keep the ratios right on a machine whose speed drifts: each round gives one ratio, and the interval resamples
starts of the processes and, within them, rounds.
"""

import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from onnx_release.core.errors import BenchmarkError, ParameterError
from onnx_release.core.params import Benchmark, Params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec, batch_dimension, largest_batch
from onnx_release.core.types import Arrays
from onnx_release.core.variants import BASE, COMPILED
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, real_batches, spread_evenly
from onnx_release.runtime.settings import load_runtime
from onnx_release.timing.conditions import Conditions
from onnx_release.timing.contenders import Contender, all_contenders
from onnx_release.timing.metrics import (
    BenchmarkMetrics,
    ContenderMetrics,
    LatencyMetrics,
    PreparationMetrics,
    SettingMetrics,
)
from onnx_release.timing.speedup import Speedup, speedup_interval
from onnx_release.timing.worker import ContenderProcess, Loaded, Turn, worker_environment

# With at least this many samples, ten values are beyond the percentile.
P95_SAMPLES, P99_SAMPLES = 200, 1000
# This many latencies of a turn are plotted.
PLOTTED = 20


@dataclass
class Measurement:
    """The measurements of one contender: latencies in seconds, a list for each round, and peak memory in bytes.

    `failure` says why it could not be measured; if it is not empty, the other fields mean nothing.
    """

    loaded: list[Loaded] = field(default_factory=list)
    rounds: list[list[float]] = field(default_factory=list)
    peak_memory: int = 0
    failure: str = ""

    def loading_seconds(self) -> float:
        """Return the seconds of what is reported of loading: each load, and the first run of the first start."""
        return sum(start.load_seconds for start in self.loaded) + sum(x.first_run_seconds for x in self.loaded[:1])

    def calling_seconds(self) -> float:
        """Return the seconds of the calls that are reported."""
        return sum(sum(turn) for turn in self.rounds)


@dataclass
class Run:
    """The measurements of all contenders by name, and the time of the whole run.

    Rounds in which other work took cores from a contender were `repeated`, at most half as many as count; rounds that
    count nevertheless are `disturbed`.
    """

    measurements: dict[str, Measurement]
    wall_seconds: float = 0.0
    repeated: int = 0
    disturbed: int = 0


def time_spent(runs: Sequence[Run]) -> dict[str, float]:
    """Return the time that the runs took, the parts for reported calls and reported loading, and the share of the rest.

    The rest is starting processes with their imports, later first runs, warming up, gaps, the first call of every turn,
    repeated rounds, and contenders that failed.
    """
    items = [item for run in runs for item in run.measurements.values() if not item.failure]
    wall = sum(run.wall_seconds for run in runs)
    calling = sum(item.calling_seconds() for item in items)
    loading = sum(item.loading_seconds() for item in items)
    return {"wall_s": wall, "calling_s": calling, "loading_s": loading, "overhead": 1 - (calling + loading) / wall}


def settings(params: Params, cores: int) -> list[tuple[int, int]]:
    """Return the pairs of a batch size and a thread count to measure, each once; all other stages read the first."""
    threads = [count or params.runtime.intra_threads or cores for count in params.benchmark.threads]
    return list(dict.fromkeys(itertools.product(params.benchmark.batches, threads)))


def check_settings(params: Params, spec: Spec, cores: int) -> None:
    """Raise ParameterError for a batch size outside the declared range, or for more threads than cores."""
    high = largest_batch(spec)
    for batch in params.benchmark.batches:
        if not 1 <= batch <= high:
            raise ParameterError(
                f"benchmark.batches has {batch}, where the spec declares {batch_dimension(spec)} from 1 to {high}: "
                "choose one in this range, or widen the dimension in spec.yaml"
            )
    counts = [("benchmark.threads", count) for count in params.benchmark.threads]
    for key, threads in [*counts, ("runtime.intra_threads", params.runtime.intra_threads)]:
        if threads is not None and threads > cores:
            raise ParameterError(
                f"{key} has {threads}, but this process may use {cores} cores (a container's CPU quota "
                f"counts): choose at most {cores}, since threads without a core only wait for each other"
            )


def measure_settings(
    files: ModelFiles, params: Params, spec: Spec, cores: int, device: str
) -> dict[tuple[int, int], Run]:
    """Measure all contenders at every batch size and thread count, PyTorch on `device`; the keys are `settings`.

    Raises ParameterError like `check_settings` and BenchmarkError like `measure`.
    """
    check_settings(params, spec, cores)
    runs, samples, data = {}, SampleFile(files.evaluation_samples), load_data(files.model)
    for batch, threads in settings(params, cores):
        runtime = load_runtime(files, params.runtime).model_copy(update={"intra_threads": threads})
        entries = all_contenders(files, spec, runtime, device)
        runs[batch, threads] = measure(entries, real_batches(samples, batch, spec, data), params.benchmark)
    return runs


def measure(entries: list[Contender], batches: list[Arrays], params: Benchmark) -> Run:
    """Start all contenders `params.starts` times, with `params.rounds` rounds each time.

    A process may be faster or slower than the next one of the same code for its whole life, and rounds within it would
    not show that. A contender that fails is left out of the later starts, and its measurement says why. Raises
    BenchmarkError if all of them fail, or if there are none.
    """
    if not entries:
        raise BenchmarkError("there is nothing to time: run the stages that make the variants, with `dvc repro`")
    begin = time.perf_counter()
    random = np.random.default_rng(params.seed)
    run = Run({entry.name: Measurement() for entry in entries})
    with worker_environment():
        for _ in range(params.starts):
            left = [entry for entry in entries if not run.measurements[entry.name].failure]
            measure_start(left, batches, params, random, run)
    if all(item.failure for item in run.measurements.values()):
        reasons = "\n".join(f"  {name}: {item.failure}" for name, item in run.measurements.items())
        raise BenchmarkError(f"no contender could be measured:\n{reasons}")
    run.wall_seconds = time.perf_counter() - begin
    return run


def measure_start(
    entries: list[Contender], batches: list[Arrays], params: Benchmark, random: np.random.Generator, run: Run
) -> None:
    """Start every contender, warm it up, take `params.rounds` rounds, and end them all; `run` gets the results."""
    with ExitStack() as stack:
        workers = {
            entry.name: stack.enter_context(ContenderProcess(entry, batches, params.timeout_seconds))
            for entry in entries
        }
        start = Start(workers, run)
        start.load()
        run.repeated += take_rounds(start, params, random)
        start.note_memory()


class Start:
    """One start of the processes of all contenders, whose results go into `run`."""

    def __init__(self, workers: dict[str, ContenderProcess], run: Run) -> None:
        self.workers, self.run = workers, run

    def ask(self, name: str, *request: Any) -> Any:
        """Return the answer, or None from a contender that has failed, now or before."""
        found = self.run.measurements[name]
        if found.failure:
            return None
        try:
            return self.workers[name].ask(*request) if request else self.workers[name].answer()
        except BenchmarkError as error:
            found.failure = str(error)
            self.workers[name].stop()
            return None

    def load(self) -> None:
        """Load the contenders one after the other, since loading is timed as well, and warm them up."""
        for name in self.workers:
            self.ask(name)  # its imports are done
        for name in self.workers:
            loaded = self.ask(name, "load")
            if loaded:
                self.run.measurements[name].loaded.append(loaded)
        for name in self.workers:
            self.ask(name, "warm_up")

    def take_round(self, params: Benchmark, random: np.random.Generator) -> dict[str, Turn]:
        """Give every contender a turn, in random order; return the turns of those that did not fail."""
        turns = {}
        for name in random.permutation(list(self.workers)):
            time.sleep(params.settle_seconds)
            turn = self.ask(name, "turn", params.turn_seconds)
            if turn:
                turns[name] = turn
        return turns

    def note_memory(self) -> None:
        for name in self.workers:
            found = self.run.measurements[name]
            found.peak_memory = max(found.peak_memory, self.ask(name, "memory") or 0)


def take_rounds(start: Start, params: Benchmark, random: np.random.Generator) -> int:
    """Take `params.rounds` rounds that count; return how many more were disturbed and repeated."""
    run, rounds, repeats = start.run, 0, 0
    while rounds < params.rounds:
        turns = start.take_round(params, random)
        disturbed = any(turn.disturbed for turn in turns.values())
        if disturbed and repeats < params.rounds // 2:  # on a busy machine more would only take longer
            repeats += 1
            continue
        rounds += 1
        run.disturbed += disturbed
        for name, turn in turns.items():
            run.measurements[name].rounds.append(turn.latencies)
    return repeats


def benchmark_metrics(
    runs: dict[tuple[int, int], Run], params: Benchmark, conditions: Conditions, preparation: PreparationMetrics
) -> BenchmarkMetrics:
    """Make a model's benchmark.json from the runs by batch size and threads; the first run's contenders are on top."""
    (batch, threads), first = next(iter(runs.items()))
    others = {key: run for key, run in runs.items() if key != (batch, threads)}
    fields = {
        **asdict(conditions),
        "batch": batch,
        "threads": threads,
        "starts": params.starts,
        "rounds": params.starts * params.rounds,
        **rounds_taken(first),
        **time_spent(list(runs.values())),
        "preparation": preparation,
        "settings": {
            f"batch_{key[0]}_threads_{key[1]}": SettingMetrics.model_validate(
                rounds_taken(run) | contender_metrics(run, key[0], params)
            )
            for key, run in others.items()
        },
    }
    return BenchmarkMetrics.model_validate(fields | contender_metrics(first, batch, params))


def rounds_taken(run: Run) -> dict[str, int]:
    return {"repeated_rounds": run.repeated, "disturbed_rounds": run.disturbed}


def contender_metrics(run: Run, batch: int, params: Benchmark) -> dict[str, ContenderMetrics]:
    """Return the metrics of every contender at one batch size and thread count, by name.

    Speed-ups are over BASE and over COMPILED, and None if one of the two could not be measured.
    """
    alike = no_differences(run, params)
    return {
        name: ContenderMetrics(
            **own_metrics(item, batch),
            no_difference_from=", ".join(alike[name]),
            **speedups("speedup_vs_eager", "speedup", run.measurements.get(BASE), item, params),
            **speedups("speedup_vs_compile", "speedup_vs_compile", run.measurements.get(COMPILED), item, params),
        )
        for name, item in run.measurements.items()
    }


def own_metrics(item: Measurement, batch: int) -> dict[str, Any]:
    """Return the metrics of one contender, without comparisons; all are None for a contender that failed."""
    ok = not item.failure
    latencies = np.concatenate(item.rounds) * 1e3 if ok else None
    return {
        "failure": item.failure,
        "provider": item.loaded[0].provider if ok else None,
        "provider_note": item.loaded[0].note if ok else None,
        "latency_ms": latency_metrics(latencies),
        "samples": 0 if latencies is None else len(latencies),
        "throughput_per_s": None if latencies is None else batch * 1e3 / float(latencies.mean()),
        "load_ms": float(np.median([start.load_seconds for start in item.loaded])) * 1e3 if ok else None,
        "first_run_ms": item.loaded[0].first_run_seconds * 1e3 if ok else None,
        "peak_memory_mb": item.peak_memory / 1e6 if ok else None,
    }


def no_differences(run: Run, params: Benchmark) -> dict[str, list[str]]:
    """Return for every contender the others of which it is open whether they are faster (`Speedup.no_difference`)."""
    alike: dict[str, list[str]] = {name: [] for name in run.measurements}
    rounds = params.starts * params.rounds
    for one, other in itertools.combinations(run.measurements, 2):
        found = paired_speedup(run.measurements[one], run.measurements[other], params)
        if found is not None and Speedup(*found, run.disturbed, rounds).no_difference:
            alike[one].append(other)
            alike[other].append(one)
    return alike


def speedups(name: str, ends: str, base: Measurement | None, item: Measurement, params: Benchmark) -> dict[str, Any]:
    """Return the speed-up of `item` over `base` under `name`, and its interval under `ends`_low and `ends`_high."""
    keys = (name, f"{ends}_low", f"{ends}_high")
    found = paired_speedup(base, item, params)
    return dict.fromkeys(keys) if found is None else dict(zip(keys, found, strict=True))


def paired_speedup(base: Measurement | None, item: Measurement, params: Benchmark) -> tuple[float, float, float] | None:
    """Return `speedup_interval` of `item` over `base`, round by round; None if one of them could not be measured."""
    theirs, own = round_medians(base), round_medians(item)
    if theirs is None or own is None:
        return None
    return speedup_interval(theirs, own, params.starts, params.seed)


def round_medians(item: Measurement | None) -> list[float] | None:
    return None if item is None or item.failure else [float(np.median(turn)) for turn in item.rounds]


def latency_metrics(latencies: np.ndarray | None) -> LatencyMetrics:
    """Return the metrics of latencies in ms; percentiles are None if there are too few samples."""
    if latencies is None:
        return LatencyMetrics(median=None, mean=None, std=None, min=None, max=None, p95=None, p99=None)
    return LatencyMetrics(
        median=float(np.median(latencies)),
        mean=float(latencies.mean()),
        std=float(latencies.std()),
        min=float(latencies.min()),
        max=float(latencies.max()),
        p95=float(np.percentile(latencies, 95)) if len(latencies) >= P95_SAMPLES else None,
        p99=float(np.percentile(latencies, 99)) if len(latencies) >= P99_SAMPLES else None,
    )


def latency_rows(run: Run) -> list[dict[str, Any]]:
    """Return the rows of plots/latency.csv, which is in git: at most PLOTTED of each turn, evenly spaced."""
    return [
        {"variant": name, "round": number, "latency_ms": f"{latency * 1e3:.4f}"}
        for name, item in run.measurements.items()
        if not item.failure
        for number, turn in enumerate(item.rounds)
        for latency in (turn[index] for index in spread_evenly(len(turn), PLOTTED))
    ]
