"""What a grid file stands for, and what is refused before anything runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from onnx_release.core.errors import SweepError
from onnx_release.core.params import load_defaults
from onnx_release.sweep.grid import Grid, combinations, load_grid, swept_keys
from tests.imports import ROOT
from tests.in_process import run_here
from tests.sweep_project import own_pipeline, write_files

FIRST, OTHER = "digits_cnn", "face_pnet"
BUDGET = f"models/{FIRST}/spec.yaml:budget.sqnr_db"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two models, in which the test runs."""
    write_files(tmp_path, own_pipeline(FIRST, OTHER))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def grid(project: Path) -> Callable[[str], Grid]:
    def load(text: str) -> Grid:
        (project / "grid.yaml").write_text(text)
        return load_grid(project / "grid.yaml")

    return load


def test_a_mapping_stands_for_every_combination_in_its_order(grid):
    loaded = grid(f"set: {{benchmark.starts: 1}}\ngrid: {{export.opset: [18, 20], '{BUDGET}': [20, 24]}}")
    assert combinations(loaded, FIRST) == [
        {"benchmark.starts": 1, "export.opset": opset, BUDGET: budget} for opset in (18, 20) for budget in (20, 24)
    ]


def test_without_models_it_is_for_the_first_of_the_list(grid):
    varied = "grid: {export.opset: [18, 20]}"
    assert grid(varied).models == [FIRST]
    assert grid(f"models: [{OTHER}]\n{varied}").models == [OTHER]
    assert grid(f"models: [{OTHER}, {FIRST}]\n{varied}").models == [OTHER, FIRST]


def test_a_key_that_a_mapping_leaves_out_has_the_model_s_own_value(grid, project):
    (project / f"models/{OTHER}/params.yaml").write_text("calibrate: {percentile: 99.5}\n")
    loaded = grid(
        f"models: [{FIRST}, {OTHER}]\ngrid: [{{calibrate.method: [mse]}}, {{calibrate.percentile: [99.9, 99.99]}}]"
    )
    assert [combinations(loaded, model)[0]["calibrate.percentile"] for model in loaded.models] == [99.99, 99.5]
    assert swept_keys(loaded) == ["calibrate.method", "calibrate.percentile"]


def test_a_list_is_a_union_in_which_a_combination_comes_once_and_other_keys_are_as_they_are(grid):
    loaded = grid(
        "grid:\n"
        "  - {calibrate.method: [minmax, percentile]}\n"
        "  - {calibrate.method: [percentile], calibrate.percentile: [99.9, 99.99]}\n"
    )
    assert load_defaults().calibrate.percentile == 99.99
    assert [tuple(row.values()) for row in combinations(loaded, FIRST)] == [
        ("minmax", 99.99),
        ("percentile", 99.99),
        ("percentile", 99.9),
    ]


def test_a_key_that_a_spec_leaves_out_has_its_default(grid):
    key = "models/digits_cnn/spec.yaml:tolerance.atol"
    rows = combinations(grid(f"grid: [{{'{key}': [0.001]}}, {{export.opset: [18, 20]}}]"), FIRST)
    assert [row[key] for row in rows] == [0.001, 1e-5, 1e-5]


def test_only_what_varies_is_swept(grid):
    assert swept_keys(grid("grid: {export.opset: [18, 20], calibrate.bins: [2048]}")) == ["export.opset"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grid: {export.opsett: [18, 20]}", "export.opsett: no such key; did you mean opset?"),
        ("grid: {exprt.opset: [18, 20]}", "exprt: no such key; did you mean export?"),
        ("grid: {export.opset: [18, 99]}", "opset 99 is out of range"),
        ("grid: {export.exporter: [dynamo, torchscript], export.opset: [18, 22]}", "torchscript exporter takes 13 to"),
        ("grid: {export.opset: ['18', 20]}", "export.opset: give auto or an integer, not '18'"),
        (f"grid: {{'{BUDGET}s': [20, 24]}}", "budget.sqnr_dbs: no such key; did you mean sqnr_db?"),
        (f"grid: {{'{BUDGET}': [many]}}", "budget.sqnr_db: Input should be a valid number"),
        ("grid: {'dvc.yaml:stages': [1]}", "dvc.yaml: has no keys for this grid"),
        ("grid: {'models.yaml:models': [[digits_cnn]]}", "models.yaml: has no keys for this grid"),
        (
            f"models: [{OTHER}]\ngrid: {{'{BUDGET}': [20, 24]}}",
            f"models/{FIRST}/spec.yaml: has no keys for this grid; params.yaml has them (without a file's name), and "
            f"models/{OTHER}/spec.yaml",
        ),
        (
            f"models: [{FIRST}, {OTHER}]\ngrid: {{'{BUDGET}': [20, 24]}}",
            f"models/{FIRST}/spec.yaml: is of one model, and the grid is for {FIRST}, {OTHER}",
        ),
        (
            f"grid: {{'models/{FIRST}/params.yaml:export.opset': [18]}}",
            f"models/{FIRST}/params.yaml: has no keys for this grid; params.yaml has them (without a file's name)",
        ),
        ("models: [digits]\ngrid: {export.opset: [18]}", f"models.yaml does not list digits, but {FIRST}, {OTHER}"),
        (f"models: [{FIRST}, {FIRST}]\ngrid: {{export.opset: [18]}}", f"models: it names {FIRST} twice"),
        ("models: []\ngrid: {export.opset: [18]}", "models: it names no model"),
        (f"model: {FIRST}\ngrid: {{export.opset: [18]}}", "model: no such key; did you mean models?"),
        ("grid: {export.opset: [18, 18]}", "export.opset has the value 18 twice"),
        ("set: {export.opset: 18}\ngrid: {export.opset: [18]}", "export.opset is in both set and grid"),
        ("grid: {export.opset: 18}", "grid.0.export.opset: Input should be a valid list"),
        ("grid: {export.opset: []}", "export.opset has no values"),
        ("grid: {}", "grid varies nothing"),
        ("grid: {export: [{opset: 18}]}", "a value is a mapping"),
        ("grid: {export.opset: [18]}\ntimings: false", "timings: no such key; did you mean timing?"),
        ("grid: {export.opset: [18]}\nobjectives: [validate/fp32:sqnr]", "validate/fp32:sqnr is not a metric"),
        (
            "grid: {export.opset: [18]}\nobjectives: [export:exporter]",
            "export:exporter is neither better higher nor lower",
        ),
        (
            "grid: {export.opset: [18]}\ntiming: false\nobjectives: [summary:speedup_vs_eager]",
            "summary:speedup_vs_eager depends on timings",
        ),
    ],
)
def test_what_cannot_run_is_refused_by_name(grid, text, says):
    with pytest.raises(SweepError) as error:
        grid(text)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "text", ["set: {model: digits_cnn}\ngrid: {export.opset: [18]}", "grid: {model: [digits_cnn]}"]
)
def test_the_model_of_an_old_grid_is_one_message_that_says_what_it_is_now(grid, text):
    with pytest.raises(SweepError, match=r"model is no parameter now: write `models: \[NAME\]` beside `grid`") as error:
        grid(text)
    assert len(str(error.value).splitlines()) == 2


def test_a_value_that_only_one_of_the_models_refuses_is_refused_with_its_file(grid, project):
    (project / f"models/{OTHER}/params.yaml").write_text("export: {exporter: torchscript}\n")
    with pytest.raises(SweepError) as error:
        grid(f"models: [{FIRST}, {OTHER}]\ngrid: {{export.opset: [18, 22]}}")
    (line,) = str(error.value).splitlines()[1:]
    assert line.startswith(f"  models/{OTHER}/params.yaml: export: opset 22 is out of range")


def test_the_tool_says_what_is_wrong_and_nothing_else(project):
    (project / "grid.yaml").write_text("grid: {export.opsett: [18]}")
    result = run_here(project, "tools.sweep", "grid.yaml")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and "did you mean opset?" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_grids_of_the_repository_can_run(tmp_path, monkeypatch):
    write_files(tmp_path, own_pipeline("digits_cnn", "mobilenet_v2"))
    monkeypatch.chdir(tmp_path)
    grids = {path.stem: load_grid(path) for path in sorted((ROOT / "sweeps").glob("*.yaml"))}
    sizes = {name: sum(len(combinations(grid, model)) for model in grid.models) for name, grid in grids.items()}
    assert sizes["digits"] == 12
    assert sizes.keys() == {"digits", "digits_timed", "mobilenet_v2"}


def test_more_combinations_than_anybody_runs_are_refused_before_they_are_made(grid):
    sections = ("prepare.calibration", "prepare.evaluation", "calibrate.bins", "calibrate.chunk", "reference.seed")
    values = list(range(200, 300))
    with pytest.raises(SweepError, match="grid has 10,000,000,000 combinations, and 10,000 is the most"):
        grid(f"grid: {{{', '.join(f'{name}: {values}' for name in sections)}}}")


def test_a_value_that_params_yaml_would_refuse_is_refused(grid):
    with pytest.raises(SweepError, match=r"benchmark\.rounds: .*less than or equal to 1000, not 100000"):
        grid("grid: {benchmark.rounds: [5, 100000]}")
