"""Which experiment of a sweep is best, and what its table says."""

from dataclasses import replace
from typing import Any

import pytest

from onnx_release.core.params import Gate
from onnx_release.review.revisions import Revision
from onnx_release.sweep.grid import Grid
from onnx_release.sweep.plan import Experiment
from onnx_release.sweep.results import (
    ExperimentResult,
    describe_unranked,
    load_results,
    of_model,
    result_of,
    results_table,
    winner,
    with_front,
)
from onnx_release.timing.speedup import OTHER_WORK, TOO_WIDE
from tests.candidates import timing
from tests.release_project import BENCHMARK, STATIC
from tests.revisions import MODEL, as_json, revision
from tests.sweep_project import own_pipeline, write_files
from tests.validated import validated
from tools.sweep import show_results

OTHER = "face_pnet"
PLAIN = ExperimentResult("a", MODEL, {"export.opset": 18}, True, "fp32", "here", (), (2.0, 1.9, 2.1), 40.0)


@pytest.fixture
def make_grid(tmp_path, monkeypatch):
    write_files(tmp_path, own_pipeline(MODEL, OTHER))
    monkeypatch.chdir(tmp_path)

    def make(**more: Any) -> Grid:
        return Grid.model_validate({"grid": {"export.opset": [18, 20]}, **more})

    return make


def validation(sqnr_db: float, passed: bool = True) -> dict[str, Any]:
    return {**validated("tensor"), "passed": passed, "sqnr_db": sqnr_db, "max_abs_error": 0.1}


def timed(speedup: float, latency: float) -> dict[str, Any]:
    interval = {"speedup_low": speedup * 0.9, "speedup_high": speedup * 1.1}
    return timing(latency, speedup_vs_eager=speedup, **interval).model_dump()


METRICS: dict[str, Any] = {
    "validate/export": validation(120.0),
    "validate/fp32": validation(120.0),
    "validate/fp16": {"left_out": True},
    "validate/int8_static": validation(20.0),
    "quantize_static": STATIC.content() | {"size_mb": 1.5},
    "benchmark": {
        **{**BENCHMARK, "machine": "here", "export": timed(2.0, 5.0)},
        **{"fp32": timed(2.0, 5.0), "int8_static": timed(4.0, 2.5)},
    },
}


def measured(metrics: dict[str, Any]) -> Revision:
    return revision({f"metrics/{MODEL}/{name}.json": as_json(content) for name, content in metrics.items()})


EXPERIMENT = Experiment("a", MODEL, {"export.opset": 18}, (), (), True)


def test_a_timed_experiment_is_what_it_would_release(make_grid):
    result = result_of(make_grid(), EXPERIMENT, measured(METRICS), [])
    assert result.released == "int8_static"
    assert result.values == ((20.0, None, None), (4.0, 4.0 * 0.9, 4.0 * 1.1))
    assert (result.passed, result.machine, result.exactness) == (True, "here", 20.0)


def test_without_timing_nothing_timed_is_read(make_grid):
    grid = make_grid(timing=False)
    stale = {**METRICS, "benchmark": {"machine": "where the base was timed"}}
    result = result_of(grid, EXPERIMENT, measured(stale), [])
    assert (result.released, result.machine, result.speedup) == (None, None, (None, None, None))
    assert [value for value, _, _ in result.values] == [20.0, 1.5]


def test_it_passes_where_the_gate_does_and_what_the_search_missed_is_no_verdict(make_grid):
    failed = measured(METRICS | {"validate/int8_static": validation(20.0, passed=False)})
    assert not result_of(make_grid(), EXPERIMENT, failed, []).passed
    missed = measured(METRICS | {"quantize_static": {**METRICS["quantize_static"], "budget_met": False}})
    assert result_of(make_grid(), EXPERIMENT, missed, []).passed


def test_a_speed_up_whose_interval_has_the_bound_in_it_does_not_pass(make_grid):
    gate = Gate(metric="benchmark.int8_static.speedup_vs_eager", min=3.9)  # it is 4 [3.6, 4.4]
    assert not result_of(make_grid(), EXPERIMENT, measured(METRICS), [gate]).passed
    noisy = gate.model_copy(update={"noisy": "pass"})
    assert result_of(make_grid(), EXPERIMENT, measured(METRICS), [noisy]).passed


def test_a_gate_of_params_yaml_holds_for_an_experiment_and_one_on_timings_only_if_it_is_timed(make_grid):
    gates = [Gate(metric="benchmark.*.speedup_vs_eager", min=3.0)]  # fp32 has 2
    assert not result_of(make_grid(), EXPERIMENT, measured(METRICS), gates).passed
    assert result_of(make_grid(timing=False), EXPERIMENT, measured(METRICS), gates).passed
    assert not result_of(
        make_grid(timing=False), EXPERIMENT, measured(METRICS), [Gate(metric="*.size_mb", max=1.0)]
    ).passed


def test_the_front_is_of_those_that_passed_and_of_one_machine(make_grid):
    grid = make_grid(timing=False)
    slim, exact, worse, failed = (
        replace(PLAIN, name=name, values=((sqnr, None, None), (size, None, None)), passed=name != "failed")
        for name, sqnr, size in [("slim", 20, 1), ("exact", 30, 2), ("worse", 19, 1.5), ("failed", 99, 0.1)]
    )
    elsewhere = replace(slim, name="elsewhere", values=((99.0, None, None), (0.1, None, None)), machine="there")
    results = with_front(grid, [slim, exact, worse, failed, elsewhere])
    assert [result.name for result in results if result.on_front] == ["slim", "exact"]


def test_the_winner_is_the_most_exact_of_the_fastest():
    fastest = replace(PLAIN, name="fastest", speedup=(4.0, 3.6, 4.4), exactness=20.0)
    alike = replace(PLAIN, name="alike", speedup=(3.8, 3.4, 4.2), exactness=30.0)
    slow = replace(PLAIN, name="slow", exactness=99.0)
    failed = replace(fastest, name="failed", passed=False, speedup=(9.0, 8.9, 9.1))
    elsewhere = replace(failed, name="elsewhere", passed=True, machine="there")
    assert winner([slow, fastest, alike, failed, elsewhere]) == alike
    assert winner([slow, fastest]) == fastest
    assert winner([failed]) is None


def test_an_interval_without_ends_sets_nothing_apart():
    fastest = replace(PLAIN, name="fastest", speedup=(9.0, 0.0, None))
    exact = replace(PLAIN, name="exact", exactness=41.0)
    assert winner([fastest, exact]) == exact


def test_without_timings_the_winner_is_the_most_exact_on_the_front():
    none = (None, None, None)
    results = [
        replace(PLAIN, name=name, exactness=exactness, on_front=front, speedup=none, machine=None, released=None)
        for name, exactness, front in [("a", 30.0, True), ("b", 20.0, True), ("c", 40.0, False)]
    ]
    best = winner(results)
    assert best is not None
    assert best.name == "a"


def test_the_table_has_what_varies_and_says_which_timings_do_not_compare(make_grid):
    grid = make_grid()
    values = ((20.0, None, None), (4.0, 3.6, 4.4))
    first = replace(PLAIN, values=values, on_front=True)
    text = results_table(
        grid, ["export.opset"], [first, first, replace(first, name="b", machine="there", released=None, passed=False)]
    )
    lines = text.splitlines()
    assert lines[0] == (
        "| export.opset | released sqnr_db, dB | released.speedup_vs_eager | released | passed | front | experiment |"
    )
    assert lines[2] == "| 18 | 20 | 4 [3.6, 4.4] | fp32 | yes | yes | a |"
    assert lines[4] == "| 18 | 20 | 4 [3.6, 4.4] | none | no | yes | b (timed on there: not comparable) |"


def test_each_model_has_its_own_gates_front_and_winner_and_the_table_says_which_it_is(make_grid, monkeypatch):
    """The experiments of one model are committed with the metrics of all."""
    grid = make_grid(models=[MODEL, OTHER], timing=False)
    plan = [
        Experiment(f"{model}-{opset}", model, {"export.opset": opset}, (), (), False)
        for model in grid.models
        for opset in (18, 20)
    ]
    # In every figure, the other model's worst is better than the best here.
    sqnr = {MODEL: {18: 20.0, 20: 25.0}, OTHER: {18: 80.0, 20: 60.0}}

    def committed(commit: str, name: str) -> Revision:
        assert commit == f"refs/exps/01/23/{name}"
        of, _, opset = name.rpartition("-")
        files: dict[str, bytes] = {}
        for model in grid.models:
            exact = validation(sqnr[model][int(opset)] if model == of else 99.0)
            metrics = METRICS | {"validate/int8_static": exact}
            files |= {f"metrics/{model}/{path}.json": as_json(content) for path, content in metrics.items()}
        return revision(files, name)

    monkeypatch.setattr("onnx_release.sweep.results.at_commit", committed)
    names = {experiment.name for experiment in plan}
    results = load_results(grid, plan, "0123", names, {MODEL: [], OTHER: []})
    assert [(result.model, result.values[0][0]) for result in results] == [
        (MODEL, 20.0), (MODEL, 25.0), (OTHER, 80.0), (OTHER, 60.0)
    ]  # fmt: skip
    assert [result.name for result in results if result.on_front] == [f"{MODEL}-20", f"{OTHER}-18"]
    best = [winner(of_model(model, results)) for model in grid.models]
    assert [found and found.name for found in best] == [f"{MODEL}-20", f"{OTHER}-18"]
    lines = results_table(grid, ["export.opset"], results).splitlines()
    assert lines[0].startswith("| model | export.opset |")
    assert lines[2].startswith(f"| {MODEL} | 18 | 20 |") and lines[5].startswith(f"| {OTHER} | 20 | 60 |")
    gates = {MODEL: [Gate(metric="validate/int8_static.sqnr_db", min=22)], OTHER: []}
    results = load_results(grid, plan, "0123", names, gates)
    assert [result.passed for result in results] == [False, True, True, True]


def test_the_tool_names_a_winner_for_each_model_and_what_times_it(make_grid, capsys):
    grid = make_grid(models=[MODEL, OTHER], timing=False)
    values = ((20.0, None, None), (1.5, None, None))
    best = replace(PLAIN, name="best", values=values)
    show_results(grid, [best, replace(best, name="b", model=OTHER, passed=False)], {MODEL: best, OTHER: None})
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"The winner of {MODEL}: dvc exp apply best && make repro MODEL={MODEL}",
        f"No experiment of {OTHER} passed: `dvc exp apply NAME` and `python -m tools.gate --model {OTHER}` say why.",
    ]
    show_results(make_grid(), [replace(best, released="fp32")], {MODEL: best})
    assert capsys.readouterr().out.splitlines()[-1] == "The winner: dvc exp apply best"


@pytest.mark.parametrize(
    ("benchmark", "doubt"),
    [
        ({"rounds": 15, "disturbed_rounds": 8}, OTHER_WORK),
        ({"int8_static": {**timed(3476.0, 2.5), "speedup_low": 31.3, "speedup_high": 385_550.0}}, TOO_WIDE),
        ({"rounds": 15, "disturbed_rounds": 7}, ""),
    ],
)
def test_what_was_not_measured_is_no_value_and_no_speed(make_grid, benchmark, doubt):
    result = result_of(
        make_grid(), EXPERIMENT, measured({**METRICS, "benchmark": METRICS["benchmark"] | benchmark}), []
    )
    assert result.doubt == doubt
    assert (result.speedup[0] is None) is bool(doubt)
    assert (result.values[1][0] is None) is bool(doubt)
    assert result.values[0] == (20.0, None, None)


def test_a_latency_of_a_disturbed_benchmark_is_not_measured(make_grid):
    grid = make_grid(objectives=["validate/int8_static:sqnr_db", "benchmark:int8_static.latency_ms.median"])
    quiet = result_of(grid, EXPERIMENT, measured(METRICS), [])
    busy = {**METRICS["benchmark"], "rounds": 15, "disturbed_rounds": 8}
    assert quiet.values[1][0] == 2.5
    assert result_of(grid, EXPERIMENT, measured({**METRICS, "benchmark": busy}), []).values[1] == (None, None, None)


def test_an_experiment_that_was_not_measured_is_not_ranked_and_says_so(make_grid):
    grid = make_grid()
    none = (None, None, None)
    good = replace(PLAIN, name="good", values=((20.0, None, None), (2.0, 1.9, 2.1)))
    doubtful = replace(PLAIN, name="busy", values=((30.0, None, None), none), speedup=none, exactness=99.0)
    doubtful = replace(doubtful, doubt=OTHER_WORK)
    results = with_front(grid, [good, doubtful])
    assert [result.on_front for result in results] == [True, False]
    assert winner(results) == results[0]
    assert results_table(grid, ["export.opset"], results).splitlines()[3] == (
        "| 18 | 30 | not measured | fp32 | yes | | busy (not measured: other work took cores) |"
    )
    note = describe_unranked(results)
    assert note.startswith("Not ranked by speed, since it was not measured: busy.") and "benchmark.replicate" in note
    assert describe_unranked([good]) == ""
    assert winner([doubtful, replace(doubtful, name="less exact", exactness=1.0)]) == doubtful
