"""Which settings are tried, which are kept, and what the time allows."""

from dataclasses import replace
from pathlib import Path

import pytest

from onnx_release.core.params import Benchmark, Runtime
from onnx_release.timing.benchmark import Measurement, Run
from onnx_release.timing.contenders import Contender
from onnx_release.tuning import tune as module
from onnx_release.tuning.tune import NOW, TRIED, Tuned, changes, tune, tune_metrics

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

    def put(speed, disturbed=0):
        seen = []

        def measure(entries, batches, params, keep_memory):
            assert not keep_memory  # as the release runs
            assert [entry.name for entry in entries] == [NOW, TRIED]
            seen.append(tuple(entry.runtime for entry in entries))
            found = {}
            for entry in entries:
                seconds = speed(entry.runtime)
                failed = isinstance(seconds, str)
                found[entry.name] = (
                    Measurement(failure=seconds) if failed else Measurement(rounds=[[seconds]] * 15, peak_memory=1)
                )
            return Run(found, 1.0, disturbed=disturbed)

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
        ("intra_threads", 2),
        ("spinning", True),
        ("arena", True),
        ("memory_pattern", True),
        ("execution_mode", "sequential"),
    ]


def test_a_number_of_threads_is_held_against_all_cores_and_other_powers_of_two():
    found = list(changes(Runtime(intra_threads=4), cores=6))
    assert [value for key, value in found if key == "intra_threads"] == [1, 2, 6]


def test_what_is_faster_is_kept_and_the_next_is_tried_on_top_of_it(entry, measured):
    seen = measured(lambda runtime: (1.0 if runtime.arena else 0.5) * (1.0 if runtime.spinning else 1.2))
    tuned = tune(entry, [], PARAMS, seconds=1e9, cores=2)
    assert tuned.runtime == Runtime(provider="cpu", arena=False)
    assert [(trial.key, trial.value) for trial in tuned.trials if trial.kept] == [("arena", False)]
    assert tuned.untried == []
    now, tried = seen[3]  # after intra_threads, spinning and arena
    assert now == tuned.runtime
    assert tried == tuned.runtime.model_copy(update={"memory_pattern": False})


def test_no_difference_is_not_kept(entry, measured):
    measured(lambda runtime: 1.0)
    tuned = tune(entry, [], PARAMS, seconds=1e9, cores=2)
    assert tuned.runtime == entry.runtime
    assert not any(trial.kept for trial in tuned.trials)
    assert [trial.speedup.figures for trial in tuned.trials] == [(1.0, 1.0, 1.0)] * 5


def test_what_was_not_measured_is_not_kept(entry, measured, monkeypatch):
    monkeypatch.setattr(module, "paired_speedup", lambda now, tried, params: (3.0, 2.9, 3.1))
    measured(lambda runtime: 1.0, disturbed=8)
    assert not any(trial.kept for trial in tune(entry, [], PARAMS, seconds=1e9, cores=2).trials)
    measured(lambda runtime: 1.0, disturbed=7)
    assert all(trial.kept for trial in tune(entry, [], PARAMS, seconds=1e9, cores=2).trials)


def test_a_setting_that_does_not_run_is_not_kept_and_says_why(entry, measured):
    measured(lambda runtime: "it crashed" if runtime.execution_mode == "parallel" else 1.0)
    tuned = tune(entry, [], PARAMS, seconds=1e9, cores=2)
    assert tuned.runtime.execution_mode == "sequential"
    assert (tuned.trials[-1].key, tuned.trials[-1].failure) == ("execution_mode", "it crashed")


def test_a_model_that_cannot_be_measured_as_it_is_stays_so_and_it_says_why(entry, measured):
    measured(lambda runtime: 1.0 if runtime.intra_threads else "it hangs")
    tuned = tune(entry, [], PARAMS, seconds=1e9, cores=2)
    assert tuned == Tuned(entry.runtime, [], [], "fp32 cannot be measured: it hangs")
    assert tune_metrics("fp32", tuned).failure == tuned.failure


def test_what_was_kept_on_the_way_is_given_up_if_it_cannot_be_measured_again(entry, measured):
    speeds = iter([1.0, 1.0, 1.0, 1.0, 1.0, 0.5])  # of two a trial: the third is kept

    measured(lambda runtime: next(speeds, "it hangs"))
    tuned = tune(entry, [], PARAMS, seconds=1e9, cores=2)
    assert tuned.runtime == entry.runtime
    assert tuned.failure == "fp32 cannot be measured: it hangs"
    assert len(tuned.trials) == 3 and not any(trial.kept for trial in tuned.trials)


def test_why_neither_setting_runs_is_said_of_the_model(entry, make_spec):
    gone = replace(entry, target="gone.onnx")
    params = PARAMS.model_copy(update={"starts": 1, "turn_seconds": 0.001})
    tuned = tune(gone, [], params, seconds=1e9, cores=1)
    assert tuned.runtime == entry.runtime
    assert tuned.failure.startswith("fp32 cannot be measured: ") and "gone.onnx" in tuned.failure


def test_no_time_leaves_everything_as_it_is_and_says_what_was_not_tried(entry, measured):
    seen = measured(lambda runtime: 1.0)
    tuned = tune(entry, [], PARAMS, seconds=0, cores=2)
    assert tuned == Tuned(
        entry.runtime,
        [],
        ["intra_threads_1", "spinning_false", "arena_false", "memory_pattern_false", "execution_mode_parallel"],
    )
    assert seen == []


def test_without_a_time_nothing_is_tried_and_nothing_is_said_to_be_missing(entry, measured):
    seen = measured(lambda runtime: 1.0)
    assert tune(entry, [], PARAMS, seconds=None, cores=2) == Tuned(entry.runtime, [], [])
    assert seen == []


def test_a_trial_that_would_not_end_in_time_is_not_begun(entry, measured, monkeypatch):
    clock = iter(range(0, 1000, 10))  # every look at the clock is ten seconds after the one before
    monkeypatch.setattr("onnx_release.tuning.tune.time.perf_counter", lambda: next(clock))
    measured(lambda runtime: 1.0)
    tuned = tune(entry, [], PARAMS, seconds=45, cores=2)
    # Looks: begin 0; 10 to 20; 30 to 40; then 50 + 10 is too late.
    assert [(trial.key, trial.value) for trial in tuned.trials] == [("intra_threads", 1), ("spinning", False)]
    assert len(tuned.untried) == 3


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
    value, low, high = trial.speedup.figures
    assert low < value < high


def test_the_metrics_name_what_was_kept(entry, measured):
    measured(lambda runtime: 1.0 if runtime.arena else 0.5)
    found = tune_metrics("fp32", tune(entry, [], PARAMS, seconds=1e9, cores=2))
    assert (found.variant, found.kept, found.untried) == ("fp32", "arena_false", "")
    assert found.trials["arena_false"].model_dump() == {
        "speedup": pytest.approx(2),
        "speedup_low": pytest.approx(2),
        "speedup_high": pytest.approx(2),
        "rounds": PARAMS.starts * PARAMS.rounds,
        "disturbed_rounds": 0,
        "kept": True,
        "failure": "",
    }
