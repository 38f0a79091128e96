"""`python -m tools.metrics` shows one model's metrics, or one metric of all models."""

import shutil

import pytest

from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Task
from tests.in_process import run_here
from tests.listed_models import make_models
from tests.release_project import change_json

TASKS: dict[str, Task] = {"cars": "classification", "car": "detection", "texts": "embedding"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    make_models(folder, TASKS, "cars", "car")
    change_json(folder / ModelFiles("car").metrics / "summary.json", {"size_mb": 44.0, "agreement": None})
    return folder


@pytest.fixture
def show(made, tmp_path):
    """The lines that the tool prints, as cells, and its messages."""

    def shown(*arguments, code=0, folder=made):
        result = run_here(folder, "tools.metrics", *arguments)
        assert result.returncode == code, result.stderr
        return [line.split() for line in result.stdout.splitlines()], result.stderr

    return shown


def test_one_model_has_all_of_its_metrics_with_unit(show):
    lines, messages = show("--model", "car")
    assert lines[0] == ["metric", "unit", "car"]
    assert ["summary.size_mb", "MB", "44"] in lines
    assert ["summary.agreement", "null"] in lines
    assert ["validate/fp32.passed", "yes"] in lines
    assert ["benchmark.int8_static.latency_ms.median", "ms", "0.125"] in lines
    assert {line[0] for line in lines} >= {"prepare.evaluation_samples", "validate/int8_static.box_iou"}
    assert messages == ""


def test_without_arguments_it_is_the_first_model_on_the_list(show):
    lines, _ = show()
    assert lines[0] == ["metric", "unit", "cars"]
    assert ["summary.size_mb", "MB", "0.125"] in lines


def test_one_metric_of_all_models_is_side_by_side(show):
    lines, messages = show("--metric", "summary.size_mb")
    assert lines == [["metric", "unit", "cars", "car", "texts"], ["summary.size_mb", "MB", "0.125", "44"]]
    assert messages == "note: texts has no metrics yet: run `make repro MODEL=texts`\n"


def test_a_star_stands_for_any_name(show):
    lines, _ = show("--metric", "validate/*.box_iou")
    assert [line[0] for line in lines[1:]] == [
        f"validate/{variant}.box_iou" for variant in ("export", "fp16", "fp32", "int8_dynamic", "int8_static")
    ]
    assert all(len(line) == 2 for line in lines[1:])  # only the detector has it


def test_model_and_metric_together_are_that_metric_of_that_model(show):
    lines, _ = show("--model", "car", "--metric", "summary.s*_mb")
    assert lines == [["metric", "unit", "car"], ["summary.size_mb", "MB", "44"]]


def test_a_metric_that_does_not_exist_gets_the_nearest_names(show):
    _, messages = show("--metric", "sumary.sizemb", code=1)
    assert messages.splitlines()[-1].startswith(
        "error: no metric is called sumary.sizemb; the nearest are summary.size_mb"
    )


def test_a_metric_that_the_models_do_not_have_is_no_unknown_one(show):
    _, messages = show("--model", "cars", "--metric", "validate/fp32.rank_correlation", code=1)
    assert messages == "error: cars has no validate/fp32.rank_correlation, which other models may have\n"


def test_a_model_that_is_not_listed_is_named(show):
    _, messages = show("--model", "ca", code=1)
    assert "models.yaml does not list ca" in messages


def test_a_model_that_has_not_run_says_what_to_run(show):
    _, messages = show("--model", "texts", code=1)
    assert messages.splitlines()[0] == "note: texts has no metrics yet: run `make repro MODEL=texts`"
    assert messages.splitlines()[-1] == "error: there are no metrics to show"


def test_a_damaged_file_is_one_message(show, made, tmp_path):
    shutil.copytree(made, tmp_path / "damaged")
    (tmp_path / "damaged" / ModelFiles("cars").metrics / "summary.json").write_text("{")
    _, messages = show("--model", "cars", code=1, folder=tmp_path / "damaged")
    assert messages.startswith("error: metrics/cars/summary.json is not JSON")
