"""Which settings are tried, which are kept, and what the time allows."""

from dataclasses import replace
from pathlib import Path

import pytest

from onnx_release import tune as module
from onnx_release.benchmark import Measurement, Run
from onnx_release.contenders import Contender
from onnx_release.errors import BenchmarkError
from onnx_release.params import Benchmark, Runtime
from onnx_release.tune import NOW, TRIED, changes, tune, tune_metrics

PARAMS = Benchmark(
    batches=[1], threads=[None], starts=3, rounds=5, turn_seconds=0.01, settle_seconds=0, timeout_seconds=60, seed=0,
    replicate=0,
)  # fmt: skip


@pytest.fixture
def entry(make_spec):
    spec = make_spec({"x": ["batch", 3]}, {"y": ["batch", 3]}, batch=(1, 8, 2))
    return Contender("fp32", "onnx", "model.onnx", Path("raw"), spec, Runtime(provider="cpu"))


@pytest.fixture
def measured(monkeypatch):
    """Put this function of a Runtime in place of the harness: seconds of a call, or why it fails; gives what it saw."""

    def put(speed):
        seen = []

        def measure(entries, batches, params):
            assert [entry.name for entry in entries] == [NOW, TRIED]
            seen.append(tuple(entry.runtime for entry in entries))
            found = {}
            for entry in entries:
                seconds = speed(entry.runtime)
                failed = isinstance(seconds, str)
                found[entry.name] = (
                    Measurement(failure=seconds) if failed else Measurement(rounds=[[seconds]] * 15, peak_memory=1)
                )
            return Run(found, 1.0)

        monkeypatch.setattr(module, "measure", measure)
        return seen

    return put


def test_powers_of_two_of_the_cores_and_every_switch_are_tried():
    assert list(changes(Runtime(), cores=6)) == [
        ("intra_threads", 1),
        ("intra_threads", 2),
        ("intra_threads", 4),
        ("spinning", False),
        ("arena", False),
        ("memory_pattern", False),
        ("execution_mode", "parallel"),
    ]


def test_a_setting_is_tried_the_other_way_round_than_it_is():
    runtime = Runtime(intra_threads=1, spinning=False, arena=False, memory_pattern=False, execution_mode="parallel")
    assert list(changes(runtime, cores=2)) == [
        ("spinning", True),
        ("arena", True),
        ("memory_pattern", True),
        ("execution_mode", "sequential"),
    ]


def test_what_is_faster_is_kept_and_the_next_is_tried_on_top_of_it(entry, measured):
    seen = measured(lambda runtime: (1.0 if runtime.arena else 0.5) * (1.0 if runtime.spinning else 1.2))
    runtime, trials, untried = tune(entry, [], PARAMS, seconds=1e9, cores=2)
    assert runtime == Runtime(provider="cpu", arena=False)
    assert [trial.name for trial in trials if trial.kept] == ["arena_false"]
    assert untried == []
    now, tried = seen[3]  # after intra_threads, spinning and arena
    assert now == runtime
    assert tried == runtime.model_copy(update={"memory_pattern": False})


def test_no_difference_is_not_kept(entry, measured):
    measured(lambda runtime: 1.0)
    runtime, trials, _ = tune(entry, [], PARAMS, seconds=1e9, cores=2)
    assert runtime == entry.runtime
    assert not any(trial.kept for trial in trials)
    assert [(trial.speedup, trial.low, trial.high) for trial in trials] == [(1.0, 1.0, 1.0)] * 5


def test_a_setting_that_does_not_run_is_not_kept_and_says_why(entry, measured):
    measured(lambda runtime: "it crashed" if runtime.execution_mode == "parallel" else 1.0)
    runtime, trials, _ = tune(entry, [], PARAMS, seconds=1e9, cores=2)
    assert runtime.execution_mode == "sequential"
    assert (trials[-1].name, trials[-1].failure) == ("execution_mode_parallel", "it crashed")


def test_a_model_that_does_not_run_as_it_is_is_an_error(entry, measured):
    measured(lambda runtime: 1.0 if runtime.intra_threads else "it hangs")
    with pytest.raises(BenchmarkError, match="fp32 cannot be measured: it hangs"):
        tune(entry, [], PARAMS, seconds=1e9, cores=2)


def test_no_time_leaves_everything_as_it_is_and_says_what_was_not_tried(entry, measured):
    seen = measured(lambda runtime: 1.0)
    runtime, trials, untried = tune(entry, [], PARAMS, seconds=0, cores=2)
    assert (runtime, trials, seen) == (entry.runtime, [], [])
    assert untried == [f"{key}_{value}".lower() for key, value in changes(entry.runtime, 2)]


def test_without_a_time_nothing_is_tried_and_nothing_is_said_to_be_missing(entry, measured):
    seen = measured(lambda runtime: 1.0)
    assert tune(entry, [], PARAMS, seconds=None, cores=2) == (entry.runtime, [], [])
    assert seen == []


def test_a_trial_that_would_not_end_in_time_is_not_begun(entry, measured, monkeypatch):
    clock = iter(range(0, 1000, 10))  # every look at the clock is ten seconds after the one before
    monkeypatch.setattr("onnx_release.tune.time.perf_counter", lambda: next(clock))
    measured(lambda runtime: 1.0)
    _, trials, untried = tune(entry, [], PARAMS, seconds=45, cores=2)
    # Looks: begin 0; 10 to 20; 30 to 40; then 50 + 10 is too late.
    assert [trial.name for trial in trials] == ["intra_threads_1", "spinning_false"]
    assert len(untried) == 3


def test_the_real_harness_compares_two_settings(save_graph, entry, tmp_path):
    import numpy as np
    from onnx import helper

    path = save_graph([helper.make_node("Relu", ["x"], ["y"])], [("x", ["batch", 3])], [("y", ["batch", 3])])
    params = PARAMS.model_copy(update={"starts": 1, "turn_seconds": 0.001})
    trial = module.compare(
        replace(entry, target=str(path)),
        Runtime(provider="cpu", intra_threads=1),
        ("spinning", False),
        [{"x": np.ones((1, 3), np.float32)}],
        params,
    )
    assert trial.failure == ""
    assert trial.low < trial.speedup < trial.high  # type: ignore[operator]


def test_the_metrics_name_what_was_kept(entry, measured):
    measured(lambda runtime: 1.0 if runtime.arena else 0.5)
    _, trials, untried = tune(entry, [], PARAMS, seconds=1e9, cores=2)
    found = tune_metrics("fp32", trials, untried)
    assert (found["variant"], found["kept"], found["untried"]) == ("fp32", "arena_false", "")
    assert found["trials"]["arena_false"] == {
        "speedup": pytest.approx(2),
        "speedup_low": pytest.approx(2),
        "speedup_high": pytest.approx(2),
        "kept": True,
        "failure": "",
    }
