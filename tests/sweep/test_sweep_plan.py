"""The plan of a sweep on the pipeline as it is: all is done, nothing twice, and nothing that is timed beside others."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from onnx_release.core.addresses import address, model_of
from onnx_release.core.errors import SweepError
from onnx_release.core.paths import ModelFiles
from onnx_release.report.metrics import ALL_METRICS
from onnx_release.sweep.grid import TIMED_METRICS, Grid, combinations
from onnx_release.sweep.plan import (
    Experiment,
    PlannedStage,
    make_plan,
    merged_name,
    read_graph,
    set_arguments,
    stages_of,
    values_of,
)
from tests.declared_stages import declared_stages
from tests.imports import ROOT
from tests.sweep_project import make_project, own_pipeline
from tools.new_model import pipeline_text

BASE = "0123456789" * 4
# One begins with the other's name.
MODEL, OTHER = "digits", "digits_cnn"
BUDGET = f"models/{MODEL}/spec.yaml:budget.sqnr_db"
SWEPT: dict[str, list[Any]] = {
    "export.opset": [18, 20],
    "calibrate.method": ["minmax", "mse"],
    BUDGET: [20, 24],
    "quantize_static.target": ["auto", "vnni"],
}
MACHINE = {"stages/dvc.yaml:hardware", "stages/dvc.yaml:sources"}


def stage_name(target: str) -> str:
    """The name of a stage without its file, model and variant."""
    return target.rpartition(":")[2].partition("@")[0]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's own pipeline for two models."""
    files = own_pipeline(OTHER)
    files |= {name.replace(OTHER, MODEL): text for name, text in files.items()}
    files[ModelFiles(MODEL).pipeline.as_posix()] = pipeline_text(MODEL)
    files["models.yaml"] = f"models: [{MODEL}, {OTHER}]\n"
    return make_project(tmp_path_factory.mktemp("project"), files)


@pytest.fixture(autouse=True)
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


@pytest.fixture(scope="module", params=[True, False], ids=["timed", "untimed"])
def planned(request: pytest.FixtureRequest, project: Path) -> tuple[Grid, list[Experiment], dict[str, PlannedStage]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        grid = Grid(grid=[SWEPT], timing=request.param)
        return grid, make_plan(grid, BASE, "sweep"), stages_of(MODEL, read_graph(), list(SWEPT))


def work_of(experiment: Experiment, stages: dict[str, PlannedStage], keys: str) -> set[tuple[str, str]]:
    """What an experiment would run if nothing were there: each stage with the values that reach it."""
    needed = {part for target in experiment.targets for part in (target, *stages[target].before)}
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
    assert [experiment.params for experiment in results] == combinations(grid, MODEL)
    assert all(experiment.timed == grid.timing for experiment in results)
    accuracy = {name for name, stage in stages.items() if stage.cached and not stage.timed}
    for experiment in results:
        if grid.timing:
            assert experiment.targets == (f"package@{MODEL}", f"report@{MODEL}")
            others = [other for other in plan if other.name in before(plan)[experiment.name]]
            done = set().union(*(work_of(other, stages, "keys") for other in others))
            assert {work for work in work_of(experiment, stages, "keys") if work[0] in accuracy} <= done
        else:
            assert {stage for stage, _ in work_of(experiment, stages, "keys")} == accuracy


def test_every_target_is_a_stage_of_the_one_model_that_is_swept(planned):
    _, plan, stages = planned
    assert {experiment.model for experiment in plan} == {MODEL}
    assert all(experiment.targets for experiment in plan)
    assert {model_of(target) for experiment in plan for target in experiment.targets} == {MODEL}
    assert {name for name in stages if model_of(name) != MODEL} == MACHINE
    assert {name for name, stage in stages.items() if not stage.cached} == MACHINE


def test_two_models_have_a_plan_each_and_share_no_experiment():
    varied = {"export.opset": [18, 20]}
    both = make_plan(Grid(models=[OTHER, MODEL], grid=[varied]), BASE, "sweep")
    alone = [make_plan(Grid(models=[model], grid=[varied]), BASE, "sweep") for model in (OTHER, MODEL)]
    assert both == [*alone[0], *alone[1]]
    assert {experiment.name for experiment in alone[0]}.isdisjoint(experiment.name for experiment in alone[1])


@pytest.mark.parametrize("keys", ["keys", "declared"])
def test_no_two_that_may_run_at_once_have_work_in_common(planned, keys):
    """`declared`: where a parameter decides what another file has, as the target does, results may be the same."""
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
            *(work_of(earlier, stages, keys) for earlier in plan if earlier.name in order[one.name] | order[other.name])
        )
        assert work_of(one, stages, keys) & work_of(other, stages, keys) <= done


def test_what_only_one_experiment_needs_is_prepared_only_for_the_sake_of_timing(planned):
    grid, plan, _ = planned
    prepares = [experiment for experiment in plan if experiment.prepares]
    for experiment in prepares:
        used_by = [other for other in plan if not other.prepares and experiment.name in before(plan)[other.name]]
        assert len(used_by) >= (1 if grid.timing else 2)


def test_timed_are_the_stages_that_read_the_hardware_and_what_comes_of_them(planned):
    """The stage that merges the parameters reads it, too, for the target and the provider, and times nothing."""
    _, _, stages = planned
    timed = {stage_name(target) for target, stage in stages.items() if stage.timed}
    assert timed == {"benchmark", "choose", "optimize", "profile", "report", "package"}
    declared = declared_stages(MODEL)
    assert "artifacts/hardware.json" in declared["settings"]["deps"]
    files = {Path(path).stem for name in timed for entry in declared[name].get("metrics", []) for path in entry}
    assert files == set(TIMED_METRICS) <= {item.file for item in ALL_METRICS}


def test_a_stage_reads_only_the_parameters_that_it_declares_in_the_merged_file():
    swept = [*SWEPT, "runtime.spinning", f"models/{MODEL}/spec.yaml:inputs", f"models/{MODEL}/spec.yaml:variants"]
    stages = stages_of(MODEL, read_graph(), swept)
    readers = {key: {stage_name(name) for name, stage in stages.items() if key in stage.keys} for key in swept}
    assert [name for name, stage in stages.items() if stage.merges] == [address("settings", MODEL)]
    assert stages[address("settings", MODEL)].keys == set(swept)
    assert "prepare" not in readers["export.opset"] and {"export", "fp16", "validate"} <= readers["export.opset"]
    assert "export" not in readers["calibrate.method"] and "fp16" not in readers["calibrate.method"]
    assert {"calibrate", "fp16", "quantize_dynamic"}.isdisjoint(readers[BUDGET])
    assert {"quantize_static", "validate"} <= readers[BUDGET]
    assert "export" not in readers["quantize_static.target"]
    # target.json and provider.json may be the same for another value.
    of_target = stages[address("quantize_dynamic", MODEL)]
    assert "quantize_static.target" in of_target.keys - of_target.declared
    assert {"export", "calibrate"}.isdisjoint(readers["runtime.spinning"]) and "validate" in readers["runtime.spinning"]
    assert {"prepare", "reference", "export"} <= readers[f"models/{MODEL}/spec.yaml:inputs"]
    assert "fetch" not in readers[f"models/{MODEL}/spec.yaml:variants"]


def test_the_plan_knows_which_parameters_decide_the_other_files_of_the_stage_settings():
    """It reads no parameter for itself but these, which `decides` knows: it only merges the others."""
    read = re.findall(r"params\.(\w+(?:\.\w+)?)", (ROOT / "stages/settings.py").read_text().partition("def main")[2])
    assert read == ["quantize_static.target", "runtime"]


def test_a_key_has_the_name_that_the_merged_file_has_for_it():
    spec = f"models/{MODEL}/spec.yaml"
    keys = ["export.opset", BUDGET, f"{spec}:sources", f"{spec}:inputs", f"{spec}:images.seed"]
    names = ["export.opset", "spec.budget.sqnr_db", "spec.sources", "spec.network.inputs", "spec.network.images.seed"]
    assert [merged_name(key) for key in keys] == names


def test_names_are_the_same_for_the_same_work_and_others_from_another_commit(planned):
    grid, plan, _ = planned
    assert make_plan(grid, BASE, "sweep") == plan
    other = {experiment.name for experiment in make_plan(grid, BASE[::-1], "sweep")}
    assert other.isdisjoint(experiment.name for experiment in plan)


@pytest.mark.parametrize(
    ("key", "sweep", "says"),
    [("gates", "sweep", "no stage reads gates: take it out"), ("export.opset", "a sweep", "name the grid file with")],
)
def test_a_key_that_no_stage_reads_and_a_name_that_dvc_refuses(key, sweep, says):
    with pytest.raises(SweepError, match=says):
        make_plan(Grid(models=[MODEL, OTHER], grid=[{key: [[], 21]}]), BASE, sweep)


def test_what_only_timed_stages_read_is_not_swept_without_them_and_everything_useless_is_named():
    varied = {"benchmark.replicate": [0, 1], "profile.calls": [1, 2], "export.opset": [18, 20]}
    grid = Grid(set={"gates": [], "benchmark.starts": 5}, grid=[varied], timing=False)
    with pytest.raises(SweepError) as caught:
        make_plan(grid, BASE, "sweep")
    untimed = "and timing: false runs no timed stage: take it out"
    assert str(caught.value).splitlines()[1:] == [
        "  no stage reads gates: take it out",
        f"  only {address('benchmark', MODEL)} reads benchmark.replicate, {untimed}",
        f"  only {address('profile', MODEL)} reads profile.calls, {untimed}",
    ]


def test_what_only_timed_stages_read_may_be_set_without_them_and_swept_with_them():
    others = {"export.opset": [18, 20], "benchmark.starts": [2]}
    assert make_plan(Grid(set={"profile.calls": 5}, grid=[others], timing=False), BASE, "sweep")
    assert make_plan(Grid(grid=[{"benchmark.replicate": [0, 1]}]), BASE, "sweep")


def test_dvc_sets_what_an_experiment_says_in_the_model_s_own_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"a.b": None, "a.new": 1e-7, "c": 'it\'s "Ü" \\', "d": [1, "Gemm", None], "e": True, "f": "18"}
    own, spec, defaults = (tmp_path / name for name in ("models/m/params.yaml", "models/m/spec.yaml", "params.yaml"))
    own.parent.mkdir(parents=True)
    own.write_text("{}\n")
    spec.write_text("budget: {sqnr_db: 20}\n")
    defaults.write_text("a: {b: 1}\nc: x\nd: []\ne: false\nf: 18\n")
    before = defaults.read_text()
    params = {**values, "models/m/spec.yaml:budget.sqnr_db": 24}
    arguments = set_arguments(Experiment("x", "m", params, (), (), timed=False))
    assert arguments[::2] == ["-S"] * len(params)
    for path, overrides in to_path_overrides(arguments[1::2]).items():
        apply_overrides(path, overrides)
    content = YAML(typ="safe").load(own.read_text())
    assert content == {"a": {"b": None, "new": 1e-7}, **{key: values[key] for key in "cdef"}}
    assert YAML(typ="safe").load(spec.read_text()) == {"budget": {"sqnr_db": 24}}
    assert defaults.read_text() == before
