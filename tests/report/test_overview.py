"""The overview has a row for each model, of its metrics alone, and what is wrong with one stays in its row."""

import re
import shutil

import pytest

from onnx_release.core.files import read_json, write_json
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Task
from onnx_release.report.overview import HEADER, overview_table, read_rows, render_html, render_markdown
from tests.listed_models import make_models
from tests.release_project import change_json

TASKS: dict[str, Task] = {"cars": "classification", "faces": "detection", "texts": "embedding", "sums": "tensor"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A model of each task, all of which have run."""
    make_models(tmp_path, TASKS, *TASKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metrics(model, file):
    return ModelFiles(model).metrics / f"{file}.json"


def remove_timing(model, variant):
    path = metrics(model, "benchmark")
    write_json(path, {name: value for name, value in read_json(path).items() if name != variant})


def row_of(model):
    """The cells of the model's row in Markdown, by the header."""
    line = next(line for line in overview_table(read_rows([model]), links=False).splitlines() if model in line)
    return dict(zip(HEADER, [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]], strict=True))


def test_each_model_has_a_row_with_what_its_metrics_say(project):
    assert row_of("cars") == {
        "model": "cars",
        "task": "classification",
        "passed": "yes",
        "released": "int8_static",
        "times as fast as PyTorch eager": "5.5 [5, 6]",
        "SQNR": "30.5 dB",
        "answers": "same answer as PyTorch: 99.0 %; accuracy: 97.0 %, PyTorch's 98.0 %",
        "size": "0.125 MB",
    }


def test_the_answers_are_measured_as_the_task_asks(project):
    assert row_of("faces")["answers"].startswith("boxes matched with PyTorch's: 99.0 %")
    assert row_of("texts")["answers"] == "same nearest neighbour as in PyTorch: 99.0 %"
    assert row_of("sums")["answers"] == ""


def test_the_metrics_are_those_of_the_released_variant(project):
    change_json(metrics("cars", "validate/fp32"), {"sqnr_db": 111.0})
    change_json(metrics("cars", "summary"), {"variant": "fp32", "size_mb": 14.0})
    found = row_of("cars")
    assert (found["released"], found["SQNR"], found["size"]) == ("fp32", "111 dB", "14 MB")


def test_no_file_but_spec_and_metrics_is_read(project):
    before = overview_table(read_rows(TASKS), links=True)
    shutil.rmtree("artifacts")
    assert overview_table(read_rows(TASKS), links=True) == before


def test_a_speed_up_that_was_not_measured_is_no_number(project):
    change_json(metrics("cars", "benchmark"), {"disturbed_rounds": 15})
    assert row_of("cars")["times as fast as PyTorch eager"] == "not measured"


def test_a_variant_that_failed_is_named_with_the_reason(project):
    change_json(metrics("cars", "validate/fp16"), {"passed": False, "failure": "logits: |y| is off\nby 3"})
    assert row_of("cars")["passed"] == r"**no**: fp16: logits: \|y\| is off by 3"
    assert row_of("faces")["passed"] == "yes"
    assert "fp16: logits: |y| is off by 3" in render_html(read_rows(TASKS))
    assert "<h1>3 of 4 models passed</h1>" in render_html(read_rows(TASKS))


def test_a_failed_export_is_no_pass_although_it_is_never_released(project):
    change_json(metrics("cars", "validate/export"), {"passed": False, "failure": "off by 3"})
    assert row_of("cars")["passed"] == "**no**: export: off by 3"


def test_a_variant_that_the_spec_leaves_out_is_no_failure(project):
    metrics("cars", "validate/fp16").write_text('{"left_out": true}\n')
    assert row_of("cars")["passed"] == "yes"


def test_a_model_without_a_release_says_so(project):
    change_json(metrics("cars", "summary"), dict.fromkeys(("variant", "size_mb", "speedup_vs_eager")))
    found = row_of("cars")
    assert (found["released"], found["passed"]) == ("nothing", "**no**: no variant could be timed")
    assert found["SQNR"] == found["size"] == ""


def test_a_model_that_has_not_run_says_what_to_run(project):
    shutil.rmtree(ModelFiles("texts").metrics)
    assert row_of("texts")["passed"] == "no results yet: run `make repro MODEL=texts`"
    page, short = render_html(read_rows(TASKS)), render_markdown(read_rows(TASKS))
    assert "<code>make repro MODEL=texts</code>" in page
    assert "texts/report" not in page + short  # a link to nothing
    assert short.startswith("# 3 of 4 models passed, 1 without results\n")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda: metrics("texts", "benchmark").unlink(), "metrics/texts/benchmark.json is not there"),
        (lambda: metrics("texts", "summary").write_text("{"), "metrics/texts/summary.json is not JSON"),
        (lambda: change_json(metrics("texts", "summary"), {"variant": "fp8"}), "validate/fp8.json is not there"),
        (lambda: remove_timing("texts", "int8_static"), "has no timing of int8_static"),
        (lambda: ModelFiles("texts").spec.write_text("task: poetry\n"), "models/texts/spec.yaml has wrong values"),
    ],
)
def test_what_is_wrong_with_one_model_is_in_its_row_and_the_others_have_theirs(project, damage, told):
    before = row_of("cars")
    damage()
    assert told in row_of("texts")["passed"]
    assert row_of("cars") == before


def test_each_page_leads_to_the_report_of_each_model(project):
    for model in TASKS:
        assert f'<a href="{model}/report/index.html">{model}</a>' in render_html(read_rows(TASKS))
        assert f"[{model}]({model}/report/index.html)" in render_markdown(read_rows(TASKS))
        assert "](" not in overview_table(read_rows(TASKS), links=False)


def test_the_pages_say_where_each_model_was_timed(project):
    assert "Timed at batch 1, with 2 threads, on AMD EPYC, 2 cores. Brackets" in render_markdown(read_rows(TASKS))
    change_json(metrics("texts", "benchmark"), {"machine": "a laptop"})
    for page in (render_markdown(read_rows(TASKS)), render_html(read_rows(TASKS))):
        assert "on AMD EPYC, 2 cores: cars, faces, sums. Timed at batch 1, with 2 threads, on a laptop: texts." in page


def test_a_model_s_own_words_are_no_html(project):
    change_json(metrics("cars", "validate/fp16"), {"passed": False, "failure": "<b>off</b>"})
    assert "&lt;b&gt;off&lt;/b&gt;" in render_html(read_rows(TASKS))
