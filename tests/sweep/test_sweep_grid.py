"""What a grid file stands for, and what is refused before anything runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from onnx_release.core.errors import SweepError
from onnx_release.core.params import load_params
from onnx_release.sweep.grid import Grid, combinations, load_grid, swept_keys
from tests.imports import ROOT
from tests.in_process import run_here

BUDGET = "models/digits_cnn/spec.yaml:budget.sqnr_db"


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Grid]:
    monkeypatch.chdir(ROOT)

    def load(text: str) -> Grid:
        (tmp_path / "grid.yaml").write_text(text)
        return load_grid(tmp_path / "grid.yaml")

    return load


def test_a_mapping_stands_for_every_combination_in_its_order(grid):
    loaded = grid(
        f"set: {{model: digits_cnn, benchmark.starts: 1}}\ngrid: {{export.opset: [18, 20], '{BUDGET}': [20, 24]}}"
    )
    same = {"model": "digits_cnn", "benchmark.starts": 1}
    assert combinations(loaded) == [
        {**same, "export.opset": opset, BUDGET: budget} for opset in (18, 20) for budget in (20, 24)
    ]


def test_a_list_is_a_union_in_which_a_combination_comes_once_and_other_keys_are_as_they_are(grid):
    loaded = grid(
        "grid:\n"
        "  - {calibrate.method: [minmax, percentile]}\n"
        "  - {calibrate.method: [percentile], calibrate.percentile: [99.9, 99.99]}\n"
    )
    assert load_params().calibrate.percentile == 99.99
    assert [tuple(row.values()) for row in combinations(loaded)] == [
        ("minmax", 99.99),
        ("percentile", 99.99),
        ("percentile", 99.9),
    ]


def test_a_key_that_a_spec_leaves_out_has_its_default(grid):
    key = "models/digits_cnn/spec.yaml:tolerance.atol"
    rows = combinations(grid(f"grid: [{{'{key}': [0.001]}}, {{export.opset: [18, 20]}}]"))
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
        ("grid: {export.opset: ['18', 20]}", "export.opset: Input should be a valid integer, not '18'"),
        (f"grid: {{'{BUDGET}s': [20, 24]}}", "budget.sqnr_dbs: no such key; did you mean sqnr_db?"),
        (f"grid: {{'{BUDGET}': [many]}}", "budget.sqnr_db: Input should be a valid number"),
        ("grid: {'dvc.yaml:stages': [1]}", "dvc.yaml: has no parameters"),
        ("grid: {model: [digits]}", "no model called digits"),
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


def test_the_tool_says_what_is_wrong_and_nothing_else(tmp_path):
    (tmp_path / "grid.yaml").write_text("grid: {export.opsett: [18]}")
    result = run_here(ROOT, "tools.sweep", str(tmp_path / "grid.yaml"))
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and "did you mean opset?" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_grids_of_the_repository_can_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    sizes = {path.stem: len(combinations(load_grid(path))) for path in sorted(Path("sweeps").glob("*.yaml"))}
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
