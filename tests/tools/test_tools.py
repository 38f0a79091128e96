"""What a person runs: inspect, gate and repro."""

import json
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest
from onnx import helper

from onnx_release.core.files import write_json, write_text
from onnx_release.core.metrics import LEFT_OUT
from onnx_release.core.paths import ModelFiles
from onnx_release.core.variants import VARIANTS
from onnx_release.report.text import table
from onnx_release.validate.metrics import ValidateMetrics
from tests.clone import list_models
from tests.digits_spec import DIGITS_SPEC
from tests.imports import ROOT
from tests.in_process import run_here
from tests.release_project import STATIC, SUMMARY
from tests.revisions import git
from tests.validated import validated
from tools import repro

FILES = ModelFiles("digits_cnn")


@pytest.fixture
def model(save_graph):
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="relu"), helper.make_node("Neg", ["a"], ["y"], name="neg")]
    return save_graph(nodes, [("x", ["batch", 3])], [("y", ["batch", 3])])


def test_inspect_prints_a_table(model):
    printed = run_here(ROOT, "tools.inspect", str(model)).stdout
    assert "input    x  float32  [batch, 3]" in printed
    assert "output   y  float32  [batch, 3]" in printed
    assert "symbolic batch" in printed
    assert "opset    ai.onnx 18" in printed
    assert "nodes    2" in printed
    assert "1  Relu" in printed


def test_inspect_prints_json(model):
    described = json.loads(run_here(ROOT, "tools.inspect", str(model), "--json").stdout)
    assert described["operators"] == {"Neg": 1, "Relu": 1}
    assert described["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 3]}]
    assert described["symbols"] == ["batch"]


@pytest.mark.parametrize("content", [None, b"no model"])
def test_inspect_names_a_file_that_it_cannot_read(tmp_path, content):
    path = tmp_path / "gone.onnx"
    if content is not None:
        path.write_bytes(content)
    result = run_here(ROOT, "tools.inspect", str(path))
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and "gone.onnx" in result.stderr
    assert "Traceback" not in result.stderr


def model_folder(folder, old="", new=""):
    """`folder` with one model on its list, whose spec has one text replaced."""
    assert old in DIGITS_SPEC
    write_text(folder / FILES.spec, DIGITS_SPEC.replace(old, new))
    write_text(folder / FILES.overrides, "{}\n")
    shutil.copy(ROOT / "params.yaml", folder)
    list_models(folder, FILES.model)
    return folder


def write_metrics(
    folder: Path, failure: str = "", missed: str = "", released: str | None = "fp32", made: Collection[str] = VARIANTS
) -> None:
    """Write what the gate reads, where fp32 has failed for one reason and the search has missed a bound."""
    for variant in VARIANTS:
        bad = failure if variant == "fp32" else ""
        content = {**validated("tensor"), "passed": not bad, "failure": bad}
        path = folder / ValidateMetrics.path(FILES.model, variant)
        write_json(path, content if variant in made else {LEFT_OUT: True})
    static = {**STATIC.content(), "budget_met": not missed, "budget_failure": missed}
    write_json(folder / STATIC.path(FILES.model), static if "int8_static" in made else {LEFT_OUT: True})
    write_json(folder / SUMMARY.path(FILES.model), {**SUMMARY.content(), "variant": released})


def test_the_gate_does_not_ask_for_what_the_spec_leaves_out(tmp_path):
    write_metrics(tmp_path, made=("export", "fp32", "fp16"))
    folder = model_folder(tmp_path, "[fp16, int8_dynamic, int8_static]", "[fp16]")
    result = run_here(folder, "tools.gate")
    assert result.returncode == 0
    assert result.stdout.startswith("export: passed\nfp32: passed\nfp16: passed\nsummary.accuracy_drop: not checked, ")
    result = run_here(folder, "tools.explain", "int8_static")
    assert result.returncode == 1
    assert "the model's spec.yaml leaves int8_static out: add it to `variants`" in result.stderr


def test_a_misspelt_gate_ends_a_run_before_its_first_stage(tmp_path):
    folder = model_folder(tmp_path)
    text = (folder / "params.yaml").read_text()
    assert "summary.compression" in text
    (folder / "params.yaml").write_text(text.replace("summary.compression", "summary.compresion"))
    git(folder, "init")
    (folder / ".dvc").mkdir()
    for arguments in ([], ["--all"]):
        result = run_here(folder, "tools.repro", *arguments)
        assert result.returncode == 1
        assert result.stderr.startswith("error: params.yaml has a gate on summary.compresion")
        assert "summary.compression" in result.stderr
    shutil.copy(ROOT / "params.yaml", folder)
    write_text(folder / FILES.overrides, "gates: [{metric: summary.compresion, min: 1}]\n")
    says = "models/digits_cnn/params.yaml has a gate on summary.compresion"
    assert run_here(folder, "tools.repro").stderr.startswith(f"error: {says}")
    assert run_here(folder, "tools.repro", "--all").stdout.startswith(f"\ndigits_cnn: not run: {says}")


@pytest.mark.parametrize(("failure", "code"), [("", 0), ("logits is off by 3", 1)])
@pytest.mark.parametrize("missed", ["", "the SQNR is 12 dB"])
def test_the_gate_lists_what_failed_and_notes_what_the_search_missed(tmp_path, failure, code, missed):
    write_metrics(tmp_path, failure, missed)
    result = run_here(model_folder(tmp_path), "tools.gate")
    assert result.returncode == code
    assert "export: passed" in result.stdout and "int8_static: passed" in result.stdout
    assert failure in result.stdout
    assert [line for line in result.stdout.splitlines() if line.startswith("note: ")] == (
        [f"note: on calibration samples, the search found no int8_static for the budget: {missed}"] if missed else []
    )


def test_the_gate_names_a_variant_that_could_not_be_made(tmp_path):
    write_metrics(tmp_path, made=("export", "fp32", "fp16", "int8_dynamic"))
    (tmp_path / STATIC.path(FILES.model)).write_text('{"not_made": "no kernel"}')
    (tmp_path / ValidateMetrics.path(FILES.model, "int8_static")).write_text(
        ValidateMetrics.not_made("no kernel").model_dump_json()
    )
    result = run_here(model_folder(tmp_path), "tools.gate")
    assert result.returncode == 1
    assert "fp16: passed\nint8_dynamic: passed\nint8_static: FAILED: it could not be made: no kernel" in result.stdout


def test_the_gate_fails_where_there_is_nothing_to_release(tmp_path):
    write_metrics(tmp_path, released=None)
    result = run_here(model_folder(tmp_path), "tools.gate")
    assert result.returncode == 1
    assert "release: FAILED: no variant" in result.stdout


def test_the_gate_says_what_to_run_where_nothing_was_validated(tmp_path):
    exported = ValidateMetrics.path(FILES.model, "export")
    for says in ("the workspace has no metrics/: run `make repro`", f"{exported} is not there: run `dvc repro`"):
        result = run_here(model_folder(tmp_path), "tools.gate")
        assert (result.returncode, result.stderr) == (1, f"error: {says}\n")
        write_text(tmp_path / "metrics/another/export.json", "{}")


def test_metrics_that_a_failed_run_took_away_come_back_and_newer_ones_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gone, newer = FILES.metrics / "gone.json", FILES.metrics / "newer.json"
    write_text(newer, "newer")
    repro.restore([], {gone: b"gone", newer: b"older"})
    assert gone.read_bytes() == b"gone"
    assert newer.read_text() == "newer"


def test_a_table_is_markdown():
    assert table(["", "a"], [["b", "1"], ["c", ""]]) == "| | a |\n| --- | --- |\n| b | 1 |\n| c | |"
