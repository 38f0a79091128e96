"""The plan of a sweep on the pipeline as it is: all is done, nothing twice, and nothing that is timed beside others."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from onnx_release.core.errors import SweepError
from onnx_release.report.metrics import ALL_METRICS
from onnx_release.sweep.grid import TIMED_METRICS, Grid, combinations, swept_keys
from onnx_release.sweep.plan import Experiment, PlannedStage, make_plan, set_arguments, stages_of_rows, values_of
from tests.imports import ROOT

BASE = "0123456789" * 4
BUDGET = "models/digits_cnn/spec.yaml:budget.sqnr_db"
SWEPT: dict[str, list[Any]] = {
    "model": ["digits_cnn"],
    "export.opset": [18, 20],
    "calibrate.method": ["minmax", "mse"],
    BUDGET: [20, 24],
}


@pytest.fixture(scope="module", params=[True, False], ids=["timed", "untimed"])
def planned(request: pytest.FixtureRequest) -> tuple[Grid, list[Experiment], list[dict[str, PlannedStage]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        grid = Grid(grid=[SWEPT], timing=request.param)
        return grid, make_plan(grid, BASE, "sweep"), stages_of_rows(combinations(grid), swept_keys(grid))


def work_of(experiment: Experiment, stages: dict[str, PlannedStage], keys: str) -> set[tuple[str, str]]:
    """What an experiment would run if nothing were there: each stage with the values that reach it."""
    targets = experiment.targets or tuple(stages)
    needed = {part for target in targets for part in (target, *stages[target].before)}
    return {(part, values_of(experiment.params, getattr(stages[part], keys))) for part in needed if stages[part].cached}


def before(plan: list[Experiment]) -> dict[str, set[str]]:
    """All that have ended when an experiment starts, by its name."""
    result: dict[str, set[str]] = {}
    for experiment in plan:
        result[experiment.name] = set(experiment.after).union(*(result[name] for name in experiment.after))
    return result


def test_what_comes_after_comes_after_in_the_plan(planned):
    _, plan, _ = planned
    assert len({experiment.name for experiment in plan}) == len(plan)
    before(plan)  # KeyError for a name that comes later


def test_every_combination_is_an_experiment_and_all_of_its_accuracy_is_prepared(planned):
    grid, plan, stages = planned
    results = [experiment for experiment in plan if not experiment.prepares]
    assert [experiment.params for experiment in results] == combinations(grid)
    assert all(experiment.timed == grid.timing for experiment in results)
    for experiment, pipeline in zip(results, stages, strict=True):
        accuracy = {name for name, stage in pipeline.items() if stage.cached and not stage.timed}
        if grid.timing:
            assert experiment.targets == ()
            others = [other for other in plan if other.name in before(plan)[experiment.name]]
            done = set().union(*(work_of(other, pipeline, "keys") for other in others))
            assert {work for work in work_of(experiment, pipeline, "keys") if work[0] in accuracy} <= done
        else:
            assert {stage for stage, _ in work_of(experiment, pipeline, "keys")} == accuracy


@pytest.mark.parametrize("keys", ["keys", "declared"])
def test_no_two_that_may_run_at_once_have_work_in_common(planned, keys):
    """`declared`: where a budget is in a file that stages read as a whole, their results may be the same."""
    _, plan, stages = planned
    order = before(plan)
    at_once = [
        (one, other)
        for one, other in itertools.combinations([experiment for experiment in plan if not experiment.timed], 2)
        if one.name not in order[other.name]
    ]
    assert at_once
    for one, other in at_once:
        done = set().union(
            *(
                work_of(earlier, stages[0], keys)
                for earlier in plan
                if earlier.name in order[one.name] | order[other.name]
            )
        )
        assert work_of(one, stages[0], keys) & work_of(other, stages[0], keys) <= done


def test_what_only_one_experiment_needs_is_prepared_only_for_the_sake_of_timing(planned):
    grid, plan, _ = planned
    prepares = [experiment for experiment in plan if experiment.prepares]
    for experiment in prepares:
        used_by = [other for other in plan if not other.prepares and experiment.name in before(plan)[other.name]]
        assert len(used_by) >= (1 if grid.timing else 2)


def test_timed_are_the_stages_that_read_the_hardware_and_what_comes_of_them(planned):
    _, _, stages = planned
    timed = {name for name, stage in stages[0].items() if stage.timed}
    assert timed == {"benchmark", "choose", "optimize", "profile", "report", "package"}
    declared = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    files = {Path(path).stem for name in timed for entry in declared[name].get("metrics", []) for path in entry}
    assert files == set(TIMED_METRICS) <= {item.file for item in ALL_METRICS}


def test_names_are_the_same_for_the_same_work_and_others_from_another_commit(planned):
    grid, plan, _ = planned
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert make_plan(grid, BASE, "sweep") == plan
        other = {experiment.name for experiment in make_plan(grid, BASE[::-1], "sweep")}
    assert other.isdisjoint(experiment.name for experiment in plan)


def test_the_pipeline_of_another_model_is_another(monkeypatch):
    monkeypatch.chdir(ROOT)
    grid = Grid(grid=[{"model": ["digits_cnn", "face_pnet"]}], timing=False)
    stages = stages_of_rows(combinations(grid), ["model", BUDGET])
    assert [BUDGET in row["quantize_static"].keys for row in stages] == [True, False]
    assert all("model" in row["fetch"].keys for row in stages)


@pytest.mark.parametrize(
    ("key", "sweep", "says"),
    [(BUDGET, "sweep", "no stage reads models/digits_cnn"), ("export.opset", "a sweep", "name the grid file with")],
)
def test_a_key_that_no_stage_reads_and_a_name_that_dvc_refuses(monkeypatch, key, sweep, says):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SweepError, match=says):
        make_plan(Grid(set={"model": "mobilenet_v2"}, grid=[{key: [20, 21]}]), BASE, sweep)


def test_what_only_timed_stages_read_is_not_swept_without_them_and_everything_useless_is_named(monkeypatch):
    monkeypatch.chdir(ROOT)
    varied = {"benchmark.replicate": [0, 1], "profile.calls": [1, 2], "export.opset": [18, 20]}
    grid = Grid(set={"gates": [], "benchmark.starts": 5}, grid=[varied], timing=False)
    with pytest.raises(SweepError) as caught:
        make_plan(grid, BASE, "sweep")
    assert str(caught.value).splitlines()[1:] == [
        "  no stage reads gates: take it out",
        "  only benchmark reads benchmark.replicate, and timing: false runs no timed stage: take it out",
        "  only profile reads profile.calls, and timing: false runs no timed stage: take it out",
    ]


def test_what_only_timed_stages_read_may_be_set_without_them_and_swept_with_them(monkeypatch):
    monkeypatch.chdir(ROOT)
    others = {"export.opset": [18, 20], "benchmark.starts": [2]}
    assert make_plan(Grid(set={"profile.calls": 5}, grid=[others], timing=False), BASE, "sweep")
    assert make_plan(Grid(grid=[{"benchmark.replicate": [0, 1]}]), BASE, "sweep")


def test_dvc_sets_what_override_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"a.b": None, "a.new": 1e-7, "c": 'it\'s "Ü" \\', "d": [1, "Gemm", None], "e": True, "f": "18"}
    (tmp_path / "params.yaml").write_text("a: {b: 1}\nc: x\nd: []\ne: false\nf: 18\n")
    arguments = set_arguments(values)
    assert arguments[::2] == ["-S"] * len(values)
    for path, overrides in to_path_overrides(arguments[1::2]).items():
        apply_overrides(path, overrides)
    content = YAML(typ="safe").load((tmp_path / "params.yaml").read_text())
    assert content == {"a": {"b": None, "new": 1e-7}, **{key: values[key] for key in "cdef"}}
